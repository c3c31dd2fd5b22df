import { ContractError, type Channel } from "@polyvisor/contracts";
import { ExitStatus, type ExitRequest, type ExitResponse } from "@polyvisor/contracts/device";
import type { Board } from "./board.ts";

/** SBI specification 2.0, chapter 10 "System Reset Extension": types and reasons. */
const SRST_SHUTDOWN = 0;
const SRST_COLD_REBOOT = 1;
const SRST_WARM_REBOOT = 2;
const SRST_SYSTEM_FAILURE = 1;

const MAX_CONSOLE_READ_BYTES = 64 * 1024;
const NOTHING: Uint8Array = new Uint8Array(0);

/**
 * Serves one hart's exits, strictly in order: every device answers at once, so a request is finished before the next
 * one is looked at. Work that a write starts (QueueNotify) goes on behind it. Nothing in a request throws out of here.
 */
export function serveExits(channel: Channel<ExitResponse, ExitRequest>, boardOf: (machine: string) => Board | undefined): void {
  let machine = "";
  let board: Board | undefined;

  const answer = (request: ExitRequest, value: bigint | undefined, data: Uint8Array = NOTHING) =>
    void channel.send({
      machine: request.machine,
      hart: request.hart,
      id: request.id,
      status: value === undefined ? ExitStatus.ACCESS_FAULT : ExitStatus.OK,
      value: value ?? 0n,
      data,
    });

  channel.onMessage((request) => {
    if (board === undefined || request.machine !== machine || board.state === "destroyed") {
      machine = request.machine;
      board = boardOf(machine);
      if (board === undefined) {
        channel.close(new ContractError("not-found", `exits: machine ${machine} has no board; create it first`));
        return;
      }
      board.hartsAttached();
    }
    const { exit } = request;
    switch (exit?.$case) {
      case "mmioRead":
        return answer(request, board.bus.read(exit.value.address, exit.value.size));
      case "mmioWrite":
        return void board.bus.write(exit.value.address, exit.value.size, exit.value.value);
      case "consoleWrite":
        return board.serial.write(exit.value.data);
      case "consoleRead":
        return answer(request, 0n, board.serial.takeInput(Math.min(exit.value.maxBytes, MAX_CONSOLE_READ_BYTES)));
      case "systemReset":
        return systemReset(board, exit.value.type, exit.value.reason);
      case "settle":
        board.guestTime(exit.value.time);
        return request.id === 0n ? undefined : board.settle((next) => answer(request, next));
      default:
        // From a newer peer: whoever waits must not wait forever.
        if (request.id !== 0n) answer(request, undefined);
    }
  });
}

function systemReset(board: Board, type: number, reason: number): void {
  const failed = reason === SRST_SYSTEM_FAILURE;
  const why = `SBI system reset, type ${type}, reason ${failed ? "system failure" : reason}`;
  if (type === SRST_SHUTDOWN) board.powerOff(failed ? 1 : 0, why);
  else if (type === SRST_COLD_REBOOT || type === SRST_WARM_REBOOT) board.requestReset(why);
}
