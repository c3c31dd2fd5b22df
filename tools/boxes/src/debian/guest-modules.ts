/**
 * The modules of debian/minimal. Debian's riscv64 kernel has virtio-console, 8250, PLIC and packet sockets built in;
 * the rest of what a virtio machine needs is modules (facts page, "Kernel file").
 */
export const GUEST_MODULES: readonly string[] = [
  // The machine's own devices.
  "virtio_mmio",
  "virtio_blk",
  "virtio_net",
  "virtio_rng",
  "virtio_balloon",
  // Filesystems: disks, shared folders, container layers.
  "ext4",
  "9p",
  "9pnet_virtio",
  "overlay",
  // Host-guest sockets.
  "vsock",
  "vmw_vsock_virtio_transport",
  // Virtual machines in the guest: needs the H extension (hv up --cpu h=on, the default).
  "kvm",
  // ext4's and libcrc32c's checksum; named only by soft dependencies.
  "crc32c_generic",
];

/** Soft dependencies name algorithms; these modules of Debian's package provide them. */
export const SOFT_ALIASES: Readonly<Record<string, string>> = {
  crc32c: "crc32c_generic",
  "crypto-crc32c": "crc32c_generic",
};
