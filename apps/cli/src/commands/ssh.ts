import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError, UsageError } from "../cli-error.ts";
import { execIn } from "./exec.ts";

const DEFAULT_USER = "debian";
const HV = fileURLToPath(new URL("../../bin/hv.mjs", import.meta.url));

export function addSshCommands(program: Command, cli: Cli): void {
  addCommand(program, "ssh <name> [command...]", "log into a machine with ssh, through its guest agent: no network or forwarded port is needed", [
    ["hv ssh web", "a shell"],
    ["hv ssh web -- systemctl status", "one command; its exit status is hv's"],
    ["hv ssh web --user root", "as another user"],
    ["hv ssh-config web >> ~/.ssh/config", "for scp, rsync, editors: then ssh web"],
  ])
    .option("--user <user>", "who to be in the guest", DEFAULT_USER)
    .action(async (name: string, command: string[], options: { user: string }) => {
      const settings = await prepare(cli, name, options.user);
      const args = [...settings.flatMap(([key, value]) => ["-o", `${key}=${quoted(value)}`]), settings.alias, ...command];
      cli.exitCode = await new Promise<number>((resolve, reject) => {
        const child = spawn("ssh", args, { stdio: "inherit" });
        child.on("error", (error) => reject(new CliError(`ssh: ${error.message}`)));
        child.on("close", (code) => resolve(code ?? 1));
      });
    });

  addCommand(program, "ssh-config <name>", "print the settings with which ssh, scp and editors reach a machine", [["hv ssh-config web >> ~/.ssh/config", ""]])
    .option("--user <user>", "who to be in the guest", DEFAULT_USER)
    .action(async (name: string, options: { user: string; json?: boolean }) => {
      const settings = await prepare(cli, name, options.user);
      const lines = [`Host ${name}`, ...settings.map(([key, value]) => `  ${key} ${quoted(value)}`)];
      cli.answer(options, { host: name, ...Object.fromEntries(settings) }, () => lines.join("\n"));
    });
}

interface Settings extends Array<[key: string, value: string]> {
  alias: string;
}

/** Puts this user's key into the guest and learns the guest's own; answers ssh_config(5) settings that use both. */
async function prepare(cli: Cli, name: string, user: string): Promise<Settings> {
  if (!/^[a-z_][a-z0-9_-]{0,31}$/.test(user)) throw new UsageError(`--user "${user}" is not a user's name`);
  const { orchestrator } = await cli.stacks.ofMachine(name);
  const folder = join(cli.home.root, "ssh");
  const publicKey = ownKey(folder);
  const hostKeys = await installKey(orchestrator, name, user, publicKey);
  // The guest told its host keys through the agent, so ssh need not ask whether to trust them.
  const alias = `hv-${name}`;
  const knownHosts = join(folder, "known_hosts");
  const others = existsSync(knownHosts) ? readFileSync(knownHosts, "utf8").split("\n").filter((line) => line !== "" && !line.startsWith(`${alias} `)) : [];
  writeFileSync(knownHosts, [...others, ...hostKeys.map((key) => `${alias} ${key}`)].map((line) => `${line}\n`).join(""));
  const proxy = [process.execPath, HV, "exec", "-i", name, "--", "/usr/sbin/sshd", "-i"].map((word) => shellWord(word)).join(" ");
  const settings = [
    ["HostName", alias],
    ["User", user],
    ["IdentityFile", join(folder, "id_ed25519")],
    ["IdentitiesOnly", "yes"],
    ["HostKeyAlias", alias],
    ["UserKnownHostsFile", knownHosts],
    ["StrictHostKeyChecking", "yes"],
    ["ProxyCommand", `${process.env["HV_HOME"] ? `env HV_HOME=${shellWord(cli.home.root)} ` : ""}${proxy}`],
    ["LogLevel", "ERROR"],
  ] as [string, string][];
  return Object.assign(settings, { alias });
}

/** One key for this user's machines, made at the first use. */
function ownKey(folder: string): string {
  const path = join(folder, "id_ed25519");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (!existsSync(path)) {
    const { error, status, stderr } = spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "polyvisor", "-f", path], { encoding: "utf8" });
    if (error) throw new CliError(`ssh-keygen: ${error.message}; hv ssh needs OpenSSH's client on this machine (Debian: apt-get install openssh-client)`);
    if (status !== 0) throw new CliError(`ssh-keygen failed: ${stderr.trim()}`);
  }
  return readFileSync(`${path}.pub`, "utf8").trim();
}

/** Exit statuses of the script below that say what is missing. */
const NO_SSHD = 43;
const NO_USER = 44;

const INSTALL_KEY = `
umask 077
[ -x /usr/sbin/sshd ] || exit ${NO_SSHD}
home=$(getent passwd "$1" | cut -d: -f6)
[ -n "$home" ] || exit ${NO_USER}
mkdir -p /run/sshd "$home/.ssh"
touch "$home/.ssh/authorized_keys"
grep -qxF "$2" "$home/.ssh/authorized_keys" || echo "$2" >>"$home/.ssh/authorized_keys"
chown -R "$1:" "$home/.ssh"
if [ -x /usr/lib/polyvisor/hv-ssh-keys ]; then /usr/lib/polyvisor/hv-ssh-keys; else ssh-keygen -A >/dev/null; fi
cat /etc/ssh/ssh_host_*_key.pub`;

/** Answers the guest's host keys: "type base64". */
async function installKey(orchestrator: OrchestratorPort, name: string, user: string, publicKey: string): Promise<string[]> {
  const output: Record<"stdout" | "stderr", string> = { stdout: "", stderr: "" };
  const status = await execIn(orchestrator, {
    name,
    command: ["sh", "-c", INSTALL_KEY, "hv-ssh", user, publicKey],
    timeoutMs: 120_000,
    onOutput: (stream, data) => void (output[stream] += Buffer.from(data).toString("utf8")),
  });
  if (status === NO_SSHD) throw new CliError(`machine ${name} has no /usr/sbin/sshd; its box is not one to log into by ssh (debian/13 is): use hv exec or hv console`);
  if (status === NO_USER) throw new CliError(`machine ${name} has no user "${user}"; name one with --user`);
  const keys = output.stdout.split("\n").flatMap((line) => /^(\S+ [A-Za-z0-9+/=]+)/.exec(line)?.[1] ?? []);
  if (status !== 0 || keys.length === 0) throw new CliError(`machine ${name}: its ssh server could not be prepared (status ${status}): ${output.stderr.trim()}`);
  return keys;
}

/** One word for the shell that ssh runs its ProxyCommand with; "%" is ssh's own. */
const shellWord = (word: string): string => (/^[\w@+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`).replaceAll("%", "%%");

/** ssh_config(5): a value with spaces stands in quotes; ProxyCommand takes the rest of the line as it is. */
const quoted = (value: string): string => (/\s/.test(value) && value.startsWith("/") ? `"${value}"` : value);
