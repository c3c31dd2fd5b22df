import { test } from "vitest";
import { boardRequest, rig, TestHart } from "./testing/rig.ts";

// What an exit costs in this service: the local adapter with its mediation chain (no rule), decoder, device, answer.
// The cpu-emulator's part (mailbox, wake-up of the hart) comes on top; `npm run bench` reports the whole.
test("exits, local adapter", async ({ bench }) => {
  const { port } = await rig();
  await port.createBoard(boardRequest("bench", [{ kind: "rng", id: "rng0" }]));
  const hart = new TestHart(port, "bench");
  await bench("read UART LSR", () => void hart.read(0x1000_0005n, 1)).run();
  await bench("read virtio InterruptStatus", () => void hart.read(0x1000_1060n, 4)).run();
  await bench("read PLIC claim", () => void hart.read(0x0c20_1004n, 4)).run();
  await bench("write UART SCR (posted)", () => hart.write(0x1000_0007n, 1, 5n)).run();
});
