/**
 * Where Debian 12's docker-registry 2.8.2, the reference that the same cases run against, is not what distribution-spec 1.1
 * says. It implements version 1.0 at most, before referrers.
 */
export const DOCKER_REGISTRY_DEVIATIONS: Readonly<Record<string, string>> = {
  "DIST-6": "a name that is too long ends in its filesystem: 500",
  "DIST-11": "an unsatisfiable range: the connection breaks",
  "DIST-12": "a malformed digest of a manifest is taken for a tag: 500",
  "DIST-27": "takes chunks in any order",
  "DIST-28": "takes chunks twice",
  "DIST-29": "does not look at the Content-Range of the closing PUT",
  "DIST-30": "does not look at Content-Range",
  "DIST-45": "a manifest that is too large: 400",
  "DIST-49": "no OCI-Subject",
  "DIST-60": "tags in the order of its directory",
  "DIST-61": "ignores n",
  "DIST-62": "ignores last",
  "DIST-63": "ignores n",
  "DIST-64": "a repository without tags is unknown to it",
  "DIST-65": "ignores n",
  "DIST-70": "no referrers API",
  "DIST-71": "no referrers API",
  "DIST-72": "no referrers API",
  "DIST-73": "no referrers API",
  "DIST-74": "no referrers API",
  "DIST-80": "deletes no tags",
};
