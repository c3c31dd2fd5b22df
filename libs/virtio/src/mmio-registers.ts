/** The register layout of virtio over MMIO, version 2 (virtio 1.2, 4.2.2, table "MMIO Device Register Layout"). */
export const MMIO_REGISTERS = [
  { name: "MagicValue", offset: 0x000, access: "R" },
  { name: "Version", offset: 0x004, access: "R" },
  { name: "DeviceID", offset: 0x008, access: "R" },
  { name: "VendorID", offset: 0x00c, access: "R" },
  { name: "DeviceFeatures", offset: 0x010, access: "R" },
  { name: "DeviceFeaturesSel", offset: 0x014, access: "W" },
  { name: "DriverFeatures", offset: 0x020, access: "W" },
  { name: "DriverFeaturesSel", offset: 0x024, access: "W" },
  { name: "QueueSel", offset: 0x030, access: "W" },
  { name: "QueueNumMax", offset: 0x034, access: "R" },
  { name: "QueueNum", offset: 0x038, access: "W" },
  { name: "QueueReady", offset: 0x044, access: "RW" },
  { name: "QueueNotify", offset: 0x050, access: "W" },
  { name: "InterruptStatus", offset: 0x060, access: "R" },
  { name: "InterruptACK", offset: 0x064, access: "W" },
  { name: "Status", offset: 0x070, access: "RW" },
  { name: "QueueDescLow", offset: 0x080, access: "W" },
  { name: "QueueDescHigh", offset: 0x084, access: "W" },
  { name: "QueueDriverLow", offset: 0x090, access: "W" },
  { name: "QueueDriverHigh", offset: 0x094, access: "W" },
  { name: "QueueDeviceLow", offset: 0x0a0, access: "W" },
  { name: "QueueDeviceHigh", offset: 0x0a4, access: "W" },
  { name: "SHMSel", offset: 0x0ac, access: "W" },
  { name: "SHMLenLow", offset: 0x0b0, access: "R" },
  { name: "SHMLenHigh", offset: 0x0b4, access: "R" },
  { name: "SHMBaseLow", offset: 0x0b8, access: "R" },
  { name: "SHMBaseHigh", offset: 0x0bc, access: "R" },
  { name: "QueueReset", offset: 0x0c0, access: "RW" },
  { name: "ConfigGeneration", offset: 0x0fc, access: "R" },
] as const;

export type MmioRegisterName = (typeof MMIO_REGISTERS)[number]["name"];

/** Where the device's own configuration space begins. */
export const CONFIG_OFFSET = 0x100;

/** "virt" */
export const MAGIC_VALUE = 0x7472_6976;
export const MMIO_VERSION = 2;
/** "PVSR" as little-endian ASCII. */
export const VENDOR_ID = 0x5253_5650;
