import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { jwtVerify, SignJWT } from "jose";
import type { AccessParts, Grant } from "../core/distribution/access.ts";

const ISSUER = "polyvisor-registry";

/** JSON Web Tokens (RFC 7519) signed with a secret that all processes of one directory share. */
export function jsonWebTokens(secretFile: string): AccessParts["tokens"] {
  const secret = sharedSecret(secretFile);
  return {
    sign: (subject, grants, lifeSeconds) =>
      new SignJWT({ access: grants }).setProtectedHeader({ alg: "HS256" }).setSubject(subject).setIssuer(ISSUER).setAudience(ISSUER).setIssuedAt().setExpirationTime(`${lifeSeconds}s`).sign(secret),
    verify: async (token) => {
      try {
        const { payload } = await jwtVerify(token, secret, { algorithms: ["HS256"], issuer: ISSUER, audience: ISSUER });
        return payload["access"] as readonly Grant[];
      } catch {
        return undefined;
      }
    },
  };
}

function sharedSecret(file: string): Uint8Array {
  try {
    writeFileSync(file, randomBytes(32), { flag: "wx", mode: 0o600 }); // whoever comes first makes it
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  return readFileSync(file);
}
