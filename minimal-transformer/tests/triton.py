"""Calls with Triton's own clients, in a process of its own: `python triton.py`, orders on stdin.

KServe's and Triton's clients define the same protobuf messages, so no process can load both. Reads
one JSON document, prints one: for each call its outputs, or the client's error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ARRAYS = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-32768, 32767],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -2.0],
    "FP32": [0.1, -2.5],
    "FP64": [0.1, 1e300],
    "BF16": [1.5, -2.0],
    "BYTES": ["text", "\u00e9"],
}


def calls(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client of Triton's gets for each order."""
    script = Path(__file__)
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _tensor(module: Any, order: dict[str, Any]) -> Any:
    import ml_dtypes
    import numpy as np
    from tritonclient.utils import triton_to_np_dtype

    datatype = order["datatype"]
    values = order.get("values", ARRAYS[datatype])
    if datatype == "BYTES":
        array = np.array([value.encode() for value in values], dtype=np.object_)
    else:
        # Each client takes another array for BF16.
        is_http = module.__name__.endswith("http")
        bf16 = ml_dtypes.bfloat16 if is_http else np.float32
        array = np.array(values, bf16 if datatype == "BF16" else triton_to_np_dtype(datatype))
    if order.get("count"):
        array = np.resize(array, order["count"])
    tensor = module.InferInput("x", list(array.shape), datatype)
    if module.__name__.endswith("http"):
        tensor.set_data_from_numpy(array, binary_data=order.get("binary_in", True))
    else:
        tensor.set_data_from_numpy(array)
    return tensor


def _call(order: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import tritonclient.grpc as over_grpc
    import tritonclient.http as over_http
    from tritonclient.utils import InferenceServerException

    is_grpc = order["over"] == "grpc"
    module: Any = over_grpc if is_grpc else over_http
    with module.InferenceServerClient(order["address"]) as client:
        options: dict[str, Any] = {"headers": {"x-shadow-pair-id": order["pair"]}}
        if not order.get("binary_in", True):
            # Triton's client says nothing of JSON, and KServe's server asks for it.
            options["headers"]["content-type"] = "application/json"
        if order.get("outputs"):
            wanted = {} if is_grpc else {"binary_data": order.get("binary_out", True)}
            options["outputs"] = [
                module.InferRequestedOutput(name, **wanted) for name in order["outputs"]
            ]
        if order.get("compression"):
            name = "compression_algorithm" if is_grpc else "request_compression_algorithm"
            options[name] = order["compression"]
        if order.get("version"):
            options["model_version"] = order["version"]
        if order.get("parameters"):
            options["parameters"] = order["parameters"]
        try:
            result = client.infer("model", [_tensor(module, order)], **options)
        except InferenceServerException as failure:
            return {"error": f"{failure.status()}: {failure.message()}"}
        array = result.as_numpy(order.get("read", "x"))
        if array is None:
            return {"error": "no such output"}
        values = [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
        return {"count": int(np.size(array)), "values": values[:4]}


if __name__ == "__main__":
    json.dump([_call(order) for order in json.load(sys.stdin)], sys.stdout)
