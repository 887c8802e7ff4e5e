"""A KServe InferenceService, as YAML."""

from __future__ import annotations

import json
from pathlib import Path

from onnxplain.files import replacing

PORT = 8080
"""The port on which KServe expects a predictor's HTTP."""

_HEAD = """\
# kubectl apply -f {file}
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    minReplicas: 1
    terminationGracePeriodSeconds: 60
"""

_OURS = """\
    timeout: 60
    containers:
      - name: kserve-container
        image: {image}
        args: ["--port", "{port}"]
        ports:
          - containerPort: {port}
            protocol: TCP
        readinessProbe:
          httpGet: {{path: /v2/health/ready, port: {port}}}
          periodSeconds: 2
        livenessProbe:
          httpGet: {{path: /v2/health/live, port: {port}}}
          periodSeconds: 10
          failureThreshold: 6
        resources:
          requests: {{cpu: "2", memory: 1Gi}}
          limits: {{cpu: "4", memory: 4Gi}}
        securityContext:
          runAsNonRoot: true
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: ["ALL"]}}
          seccompProfile: {{type: RuntimeDefault}}
        volumeMounts:
          - {{name: tmp, mountPath: /tmp}}
    volumes:
      - name: tmp
        emptyDir: {{}}
"""

_TRITON = """\
    model:
      modelFormat:
        name: triton
        version: "2"
      protocolVersion: v2
      storageUri: {uri}
      resources:
        requests: {{cpu: "2", memory: 4Gi}}
        limits: {{cpu: "4", memory: 8Gi, nvidia.com/gpu: "{gpus}"}}
"""


def with_image(name: str, image: str, path: Path) -> None:
    """Write the YAML of a service that runs the container that `onnxplain package --oci` makes.

    Raises:
        InputError: the path cannot be written.
    """
    _write(path, name, _OURS.format(image=json.dumps(image), port=PORT))


def with_triton(name: str, uri: str, path: Path, gpus: int) -> None:
    """Write the YAML of a service in which Triton serves a repository.

    Args:
        name: the service's.
        uri: where the folder of `onnxplain package --triton` was put: s3://…, gs://…, pvc://….
        path: the file to write.
        gpus: how many it asks for.

    Raises:
        InputError: the path cannot be written.
    """
    _write(path, name, _TRITON.format(uri=json.dumps(uri), gpus=gpus))


def _write(path: Path, name: str, predictor: str) -> None:
    with replacing(path) as beside:
        text = _HEAD.format(name=name, file=path.name) + predictor
        beside.write_text(text, encoding="utf-8")
