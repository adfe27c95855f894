"""v1 and v2 over REST, through a real server."""

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
from served import Predictor, refused

DATATYPES = {
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def tensor(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "shape": [2], "datatype": "FP64", "data": [1, 2]} | fields


def binary(predictor: Predictor, document: dict[str, Any], tail: bytes) -> httpx.Response:
    """POST a v2 request with binary tensors."""
    head = json.dumps(document).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return predictor.client.post("/v2/models/model/infer", content=head + tail, headers=headers)


def test_the_sample_request(predictor: Predictor) -> None:
    """The README's request has the README's answer, to the byte."""
    answer = predictor.predict({"values": ["3.3", "62.3", "324"]})
    assert answer.status_code == 200
    assert answer.content == b'{"predictions":[6.6,124.6,648.0]}'


def test_instances_come_back_in_their_shape(predictor: Predictor) -> None:
    """Scalars and nested lists keep shape and order."""
    assert predictor.predict({"instances": [1, "2"]}).json() == {"predictions": [2.0, 4.0]}
    answer = predictor.predict({"instances": [[[1, 2]], [["3", 4.5]]]})
    assert answer.json() == {"predictions": [[[2.0, 4.0]], [[6.0, 9.0]]]}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "text/plain",
        None,
    ],
)
def test_a_v1_body_is_json_whatever_its_type(
    predictor: Predictor, content_type: str | None
) -> None:
    """KServe hands over bytes where the type, such as curl's default, does not say JSON."""
    headers = {} if content_type is None else {"content-type": content_type}
    for body, status in ((b'{"values": [1]}', 200), (b'{"values": [1', 400)):
        answer = predictor.client.post("/v1/models/model:predict", content=body, headers=headers)
        assert answer.status_code == status
        assert list(answer.json()) == ["predictions" if status == 200 else "error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Unrecognized request format: Input is a zero-length, empty document"),
        (b"{", "Unrecognized request format: unexpected end of data: line 1 column 2"),
        (b"\xff\xfe", "Unrecognized request format: str is not valid UTF-8"),
        (b"[1]", "body is a list of 1"),
        (b"null", "body is null"),
        (b"{}", "body has neither values nor instances"),
        (b'{"values": []}', "values is an empty list"),
        (b'{"instances": 5}', "instances is 5"),
        (b'{"values": [1, NaN]}', "Unrecognized request format: unexpected character"),
        (b'{"values": [1e999]}', "Unrecognized request format: number is infinity when parsed"),
        (b'{"values": [1, 1e308]}', "values[1] is 1e+308, and 1e+308 times 2.0 overflows float64"),
        (b'{"instances": [[1e308]]}', "instances[0][0] is 1e+308"),
    ],
)
def test_v1_mistakes_are_answered_with_their_place(
    predictor: Predictor, body: bytes, message: str
) -> None:
    """400 with KServe's error body."""
    assert refused(predictor.predict(content=body)).startswith(message)


def test_v2_keeps_names_shapes_order_and_id(predictor: Predictor) -> None:
    """Several inputs, nested or flat, come back as outputs of the same names, in their order."""
    answer = predictor.infer(
        tensor("z", shape=[2, 2], data=[[1, 2], [3, 4]]),
        tensor("a", shape=[1, 2], data=[5, 6], datatype="INT32"),
        tensor("empty", shape=[0, 3], data=[]),
        id="call-7",
    )
    document = answer.json()
    assert (document["id"], document["model_name"]) == ("call-7", "model")
    assert [(o["name"], o["shape"], o["data"]) for o in document["outputs"]] == [
        ("z", [2, 2], [2.0, 4.0, 6.0, 8.0]),
        ("a", [1, 2], [10.0, 12.0]),
        ("empty", [0, 3], []),
    ]
    assert {output["datatype"] for output in document["outputs"]} == {"FP64"}


def test_no_id_is_invented(predictor: Predictor) -> None:
    """Two answers to one request are equal, so that a primary and a shadow can agree."""
    assert predictor.infer(tensor()).json()["id"] == ""
    assert predictor.infer(tensor()).content == predictor.infer(tensor()).content


@pytest.mark.parametrize("datatype", DATATYPES.keys() - {"FP16"})
def test_every_numeric_datatype_as_json(predictor: Predictor, datatype: str) -> None:
    """FP32 is answered as FP32, everything else as FP64; KServe takes FP16 as bytes only."""
    (output,) = predictor.infer(tensor(datatype=datatype, data=[1, 100])).json()["outputs"]
    assert output["data"] == [2.0, 200.0]
    assert output["datatype"] == ("FP32" if datatype == "FP32" else "FP64")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_numeric_datatype_as_bytes(predictor: Predictor, datatype: str) -> None:
    """The binary tensor extension, in and out, with a JSON tensor next to the binary one."""
    raw = np.array([[1, 2], [3, 100]], dtype=DATATYPES[datatype]).tobytes()
    size = {"binary_data_size": len(raw)}
    inputs = [
        {"name": "b", "shape": [2, 2], "datatype": datatype, "parameters": size},
        tensor("j"),
    ]
    answer = binary(predictor, {"inputs": inputs, "parameters": {"binary_data_output": True}}, raw)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    first = np.float32 if datatype in ("FP16", "FP32") else np.float64
    cut = length + outputs[0]["parameters"]["binary_data_size"]
    assert [output["name"] for output in outputs] == ["b", "j"]
    assert outputs[0]["shape"] == [2, 2]
    assert np.frombuffer(answer.content[length:cut], first).tolist() == [2, 4, 6, 200]
    assert np.frombuffer(answer.content[cut:], np.float64).tolist() == [2, 4]


def test_binary_input_is_answered_in_json_unless_asked(predictor: Predictor) -> None:
    """Only `binary_data_output` or an output's own `binary_data` make the answer binary."""
    raw = np.array([1, 2], dtype=np.float32).tobytes()
    item = {"name": "b", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    answer = binary(predictor, {"inputs": [item]}, raw)
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0]
    asked = [{"name": "b", "parameters": {"binary_data": True}}]
    answer = binary(predictor, {"inputs": [item], "outputs": asked}, raw)
    assert answer.content.endswith(np.array([2, 4], dtype=np.float32).tobytes())


def test_only_the_asked_outputs(predictor: Predictor) -> None:
    """`outputs` chooses; a name that no input has is refused."""
    answer = predictor.infer(tensor("a"), tensor("b"), outputs=[{"name": "b"}])
    assert [output["name"] for output in answer.json()["outputs"]] == ["b"]
    message = refused(predictor.infer(tensor("a"), outputs=[{"name": "c"}]))
    assert message == 'outputs[0].name is "c"; ask for one of "a".'


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "inputs is an empty list"),
        ([tensor(datatype="BYTES", data=["x", "y"])], 'inputs[0].datatype is "BYTES"; send one'),
        ([tensor(datatype="BOOL", data=[True, False])], 'inputs[0].datatype is "BOOL"; send one'),
        ([tensor(datatype="BF16")], 'inputs[0].datatype is "BF16"; send one'),
        ([tensor(), tensor()], 'inputs[1].name is "a" again; rename it.'),
        ([tensor(data=[1, "2"])], 'inputs[0].data[1] is "2"; send a finite FP64.'),
        ([tensor(data=[1, True])], "inputs[0].data[1] is true"),
        ([tensor(data=[1, 2, 3])], "inputs[0].data has shape [3] and inputs[0].shape is [2]"),
        ([tensor(data=[1, 1e308])], "inputs[0].data[1] is 1e+308, and 1e+308 times 2.0 overflows"),
        ([tensor(datatype="FP32", data=[1, 3e38])], "inputs[0].data[1] is 3e+38, and 3e+38 times"),
        ([tensor(datatype="INT8", data=[1, 128])], "inputs[0].data[1] is 128; send a finite INT8."),
        ([tensor(shape=[0, 2**40, 2**40], data=[])], "inputs[0].data has shape [0] and inputs[0]"),
        ([tensor(data=[1, math.nan])], "inputs[0].data[1] is NaN; send a finite FP64."),
        ([tensor(datatype="FP16", data=[1, 2])], "Sending FP16 data via JSON is not supported"),
    ],
)
def test_v2_mistakes_are_answered_with_their_place(
    predictor: Predictor, inputs: list[dict[str, Any]], message: str
) -> None:
    """400 with KServe's error body."""
    body = json.dumps({"inputs": inputs})
    typed = {"content-type": "application/json"}
    answer = predictor.client.post("/v2/models/model/infer", content=body, headers=typed)
    assert refused(answer).startswith(message)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", ["body"]),
        (b"{", ["body", 1]),
        (b"{}", ["body", "InferenceRequest", "inputs"]),
        (
            b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64"}]}',
            ["body", "InferenceRequest", "inputs", 0, "data"],
        ),
    ],
)
def test_v2_bodies_that_are_not_requests_are_refused(
    predictor: Predictor, body: bytes, place: list[str | int]
) -> None:
    """KServe's 422 names the place; the route for versions, which KServe lacks, is a 501."""
    typed = {"content-type": "application/json"}
    answer = predictor.client.post("/v2/models/model/infer", content=body, headers=typed)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == place
    path = "/v2/models/model/versions/1/infer"
    assert predictor.client.post(path, json={"inputs": [tensor()]}).status_code == 501


def test_binary_values_are_checked_too(predictor: Predictor) -> None:
    """Infinity in bytes is named like Infinity in JSON."""
    raw = np.array([1, np.inf], np.float32).tobytes()
    item = {"name": "b", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    answer = binary(predictor, {"inputs": [item]}, raw)
    assert refused(answer) == "inputs[0].data[1] is Infinity; send a finite FP32."


def test_a_megabyte_of_numbers(predictor: Predictor) -> None:
    """Large bodies are answered whole; the one bad value in them is found."""
    values = [i / 7 for i in range(60_000)]
    assert predictor.predict({"values": values}).json()["predictions"] == [v * 2 for v in values]
    texts = [str(value) for value in values]
    assert predictor.predict({"values": texts}).json()["predictions"] == [v * 2 for v in values]
    message = refused(predictor.predict({"values": [*texts[:-1], "last"]}))
    assert message.startswith('values[59999] is "last"')


def test_what_does_not_exist_is_said_so(predictor: Predictor) -> None:
    """Another model is a 404, explaining a 501, both in KServe's form."""
    client = predictor.client
    for path in ("/v1/models/other:predict", "/v2/models/other/infer"):
        answer = client.post(path, json={"values": [1], "inputs": []})
        assert answer.status_code == 404
        assert answer.json() == {"error": "Model with name other does not exist."}
    assert client.post("/v1/models/model:explain", json={"values": [1]}).status_code == 501
    assert client.get("/v1/models/other").status_code == 404


def test_probes_and_metrics(predictor: Predictor) -> None:
    """The readiness probe, and the duration of each prediction for Prometheus."""
    assert predictor.client.get("/v1/models/model").json() == {"name": "model", "ready": True}
    predictor.predict({"values": [1]})
    assert (
        'request_predict_seconds_count{model_name="model"}' in predictor.client.get("/metrics").text
    )
