import { ContractError } from "@polyvisor/contracts";
import { jetstreamManager, StorageType } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type { Logger } from "pino";
import { cloudEventOf, decodeCloudEvent, encodeCloudEvent, subjectOf } from "./cloud-event.ts";
import type { EventBus } from "./events.ts";

/** The stream that keeps facts, so that who starts late can read what happened. */
export const FACTS_STREAM = "PV_FACTS";
const FACTS_SUBJECTS = "pv.v1.>";
const FACTS_MAX_BYTES = 64 * 1024 * 1024;
const DAY_NS = 24 * 3600 * 1e9;

export interface NatsBusOptions {
  readonly name: string;
  readonly log?: Logger;
  readonly connectTimeoutMs?: number;
}

/**
 * The bus of the other topologies: core publish and subscribe on a NATS server. Where it has JetStream, a stream keeps
 * what is published (7 days, 64 MiB). While the server is away facts wait in the client's buffer; it reconnects for ever.
 */
export async function connectNatsBus(url: string, options: NatsBusOptions): Promise<EventBus> {
  const { name, log } = options;
  let connection: NatsConnection;
  try {
    connection = await connect({ servers: url, name, maxReconnectAttempts: -1, reconnectTimeWait: 500, timeout: options.connectTimeoutMs ?? 5_000 });
  } catch (error) {
    throw new ContractError("unavailable", `no NATS server at ${url} (${(error as Error).message}); start nats-server there or set NATS_URL`, { cause: error });
  }
  await keepFacts(connection, log);
  void watchStatus(connection, url, log);
  return {
    publish(fact) {
      try {
        connection.publish(subjectOf(fact), encodeCloudEvent(cloudEventOf(fact)));
      } catch (error) {
        log?.warn({ err: error, fact: fact.fact }, "a fact could not be published");
      }
    },
    subscribe(pattern, listener) {
      const subscription = connection.subscribe(pattern, {
        callback: (error, message) => {
          try {
            if (error) throw error;
            listener(decodeCloudEvent(message.string()));
          } catch (failure) {
            log?.warn({ err: failure, subject: message?.subject }, "an event could not be handled");
          }
        },
      });
      return () => subscription.unsubscribe();
    },
    async close() {
      // drain() sends what is still buffered, then closes.
      if (!connection.isClosed()) await connection.drain().catch(() => connection.close());
    },
  };
}

async function keepFacts(connection: NatsConnection, log: Logger | undefined): Promise<void> {
  try {
    const manager = await jetstreamManager(connection, { timeout: 2_000 });
    const config = { name: FACTS_STREAM, subjects: [FACTS_SUBJECTS], storage: StorageType.File, max_bytes: FACTS_MAX_BYTES, max_age: 7 * DAY_NS };
    await manager.streams.add(config).catch((error) => manager.streams.info(FACTS_STREAM).catch(() => Promise.reject(error)));
  } catch (error) {
    log?.warn({ reason: (error as Error).message }, "facts are not kept: the NATS server has no JetStream");
  }
}

async function watchStatus(connection: NatsConnection, url: string, log: Logger | undefined): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === "disconnect") log?.warn({ url }, "NATS server lost; facts wait until it is back");
    if (status.type === "reconnect") log?.info({ url }, "NATS server is back");
  }
}
