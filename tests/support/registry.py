"""Talks to the registry at /v2/ as the distribution specification says, and makes images to push.

    repository = Repository(server, user, "team/a")
    image = Image.make()
    repository.push(image, "1.0")
"""

import base64
import json
import os
import re
import urllib.parse

import lathe
from archives import digest, image_config, tar  # noqa: F401 (tests say registry.tar)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"


def described(data, kind, **more):
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **more}


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Image:
    """The documents and layers of an image."""

    def __init__(self, layers, architecture="amd64", kind=MANIFEST, **more):
        self.layers = layers
        self.config = image_config(layers, architecture, Cmd=["/bin/sh"], Env=["A=b"])
        self.kind = kind
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": described(self.config, CONFIG),
                                    "layers": [described(layer, LAYER) for layer in layers], **more}).encode()

    @classmethod
    def make(cls, layers=2, size=2000, **options):
        return cls([tar({f"layer{i}": os.urandom(size)}) for i in range(layers)], **options)

    @property
    def digest(self):
        return digest(self.manifest)

    @property
    def blobs(self):
        return [self.config, *self.layers]


class Repository:
    """One repository as one user sees it. Answers are lathe.Answer."""

    def __init__(self, server, user, name, owner=None, password=lathe.USER_PASSWORD):
        self.name = f"{owner or user.name}/{name}"
        self.client = lathe.Client(server.url, language=None)
        self.authorization = basic(user.name, password)

    def request(self, method, path, body=None, headers=None, **options):
        sent = {"Authorization": self.authorization, **(headers or {})}
        return self.client.request(method, path, body, {k: v for k, v in sent.items() if v is not None}, **options)

    def at(self, path):
        return f"/v2/{self.name}/{path}"

    def location(self, answer):
        """Where to go on, as a path with its query."""
        parts = urllib.parse.urlsplit(answer.headers["Location"])
        return parts.path + ("?" + parts.query if parts.query else "")

    def begin(self):
        answer = self.request("POST", self.at("blobs/uploads/"))
        assert answer.status == 202, answer
        return self.location(answer)

    def push_blob(self, data):
        answer = self.request("PUT", self.begin(), data, query={"digest": digest(data)})
        assert answer.status == 201, answer
        return answer

    def get_blob(self, wanted, **options):
        return self.request("GET", self.at(f"blobs/{wanted}"), **options)

    def has_blob(self, wanted):
        status = self.request("HEAD", self.at(f"blobs/{wanted}")).status
        assert status in (200, 404)
        return status == 200

    def put_manifest(self, document, reference=None, kind=MANIFEST):
        return self.request("PUT", self.at(f"manifests/{reference or digest(document)}"), document,
                            {"Content-Type": kind})

    def get_manifest(self, reference, method="GET"):
        return self.request(method, self.at(f"manifests/{reference}"), headers={"Accept": f"{MANIFEST}, {INDEX}"})

    def push(self, image, reference=None):
        for blob in image.blobs:
            self.push_blob(blob)
        answer = self.put_manifest(image.manifest, reference, image.kind)
        assert answer.status == 201, answer
        return answer

    def pull(self, reference):
        """Fetches everything that the reference stands for, and checks every digest; the blobs by digest."""
        answer = self.get_manifest(reference)
        assert answer.status == 200, answer
        found = {digest(answer.body): answer.body}
        assert answer.headers["Docker-Content-Digest"] in found
        manifest = answer.json
        for one in [manifest.get("config"), *manifest.get("layers", [])]:
            if one:
                blob = self.get_blob(one["digest"])
                assert blob.status == 200 and digest(blob.body) == one["digest"], blob
                found[one["digest"]] = blob.body
        for child in manifest.get("manifests", []):
            found.update(self.pull(child["digest"]))
        return found

    def tags(self, **query):
        answer = self.request("GET", self.at("tags/list"), query=query or None)
        assert answer.status == 200, answer
        return answer.json["tags"]

    def referrers(self, subject, **query):
        answer = self.request("GET", self.at(f"referrers/{subject}"), query=query or None)
        assert answer.status == 200, answer
        return answer


def error_codes(answer):
    """The specification's codes, with its form of errors checked."""
    errors = answer.json["errors"]
    assert errors and all(re.fullmatch("[A-Z_]+", error["code"]) and error["message"] for error in errors), answer
    return [error["code"] for error in errors]
