/** What a space counts; read by ReadSpaceStats. */
export interface SpaceCounters {
  grantedDataPages: number;
  grantedZeroPages: number;
  recalledPages: number;
  writtenBackPages: number;
  dmaReads: number;
  dmaWrites: number;
  dmaBytes: number;
  dmaDenied: number;
  forwardedAccesses: number;
}

export function newCounters(): SpaceCounters {
  return {
    grantedDataPages: 0,
    grantedZeroPages: 0,
    recalledPages: 0,
    writtenBackPages: 0,
    dmaReads: 0,
    dmaWrites: 0,
    dmaBytes: 0,
    dmaDenied: 0,
    forwardedAccesses: 0,
  };
}
