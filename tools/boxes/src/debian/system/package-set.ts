/**
 * debian/13's packages. `?essential` is what Debian says every system has (Policy 3.8); the rest is what a machine of one's own needs:
 * an init, a network, a way in, a package manager. Recommended packages are left out, as in Debian's own cloud images.
 */
export const SYSTEM_PACKAGES: readonly string[] = [
  "?essential",
  ...["systemd", "systemd-sysv", "udev", "dbus", "kmod", "e2fsprogs", "libnss-myhostname"],
  ...["apt", "debian-archive-keyring", "ca-certificates", "openssl"],
  ...["iproute2", "iputils-ping", "netbase", "curl"],
  ...["openssh-server", "sudo"],
  ...["less", "nano", "procps"],
];

/** The init of the kernel's own making: what is needed to find and mount the root filesystem. */
export const ROOT_MODULES: readonly string[] = ["virtio_mmio", "virtio_blk", "ext4", "crc32c_generic"];

/** On the disk, loaded when a device or a program asks for them. Those that the kernel package lacks are left out with a remark. */
export const DISK_MODULES: readonly string[] = [
  ...ROOT_MODULES,
  // Devices of the board.
  ...["virtio_net", "virtio_rng", "virtio_balloon", "virtio_input", "virtio_gpu", "virtio_pmem", "virtio_scsi", "sd_mod", "sr_mod"],
  ...["9p", "9pnet_virtio", "vsock", "vmw_vsock_virtio_transport", "e1000", "ahci", "nvme", "kvm"],
  // Filesystems and block layers.
  ...["overlay", "erofs", "squashfs", "isofs", "vfat", "nls_ascii", "nls_cp437", "nls_utf8", "btrfs", "xfs", "nfs", "loop", "nbd", "dm_mod", "dm_crypt", "dm_thin_pool"],
  // Networks: containers, bridges, tunnels, firewalls.
  ...["veth", "bridge", "br_netfilter", "tun", "macvlan", "ipvlan", "vxlan", "dummy", "bonding", "8021q", "wireguard", "ip_vs", "ip_vs_rr"],
  ...["nf_tables", "nft_compat", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct", "nft_limit", "nft_log", "nft_reject_inet", "nft_fib_inet", "nft_redir", "nft_hash", "nft_numgen"],
  ...["nf_conntrack_netlink", "xt_conntrack", "xt_MASQUERADE", "xt_addrtype", "xt_comment", "xt_nat", "xt_tcpudp", "xt_multiport", "xt_mark", "xt_limit", "xt_LOG", "xt_u32", "xt_REDIRECT", "xt_statistic", "xt_ipvs"],
  ...["ip_tables", "iptable_filter", "iptable_nat", "iptable_mangle", "ip6_tables", "ip6table_filter", "ip6table_nat", "ipt_REJECT", "ip6t_REJECT", "ip_set", "ip_set_hash_net"],
  ...["sch_htb", "sch_tbf", "sch_netem", "sch_ingress", "sch_fq", "cls_u32", "act_police", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "af_packet_diag", "tcp_bbr"],
];

/** What Debian's slim images leave out, too; licences stay. dpkg in the guest is told the same (dpkg.cfg.d/hv). */
export const PATH_EXCLUDES: readonly string[] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*", "/usr/share/bug/*", "/usr/share/linda/*"];
export const PATH_INCLUDES: readonly string[] = ["/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias"];

const asPattern = (glob: string): RegExp => new RegExp(`^${glob.replaceAll(".", "\\.").replaceAll("*", ".*")}$`);
const excludes = PATH_EXCLUDES.map(asPattern);
const includes = PATH_INCLUDES.map(asPattern);

/** Directories are kept where an included file may need them (dpkg(1), --path-exclude). */
export function isExcluded(path: string): boolean {
  return excludes.some((e) => e.test(path)) && !includes.some((i) => i.test(path)) && !/^\/usr\/share\/doc\/[^/]+$/.test(path);
}
