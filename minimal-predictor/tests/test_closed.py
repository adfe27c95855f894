"""No client can load or unload a model."""

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from served import Predictor


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize("name", ["model", "other"])
def test_rest_repository_is_closed(predictor: Predictor, verb: str, name: str) -> None:
    """403, and the model goes on as before."""
    answer = predictor.client.post(f"/v2/repository/models/{name}/{verb}")
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("loading and unloading models is closed")
    assert predictor.client.get("/v1/models/model").json()["ready"] is True
    assert predictor.predict({"values": [1]}).json() == {"predictions": [2.0]}


def test_grpc_repository_is_closed(predictor: Predictor) -> None:
    """PERMISSION_DENIED, and the model goes on as before."""
    with predictor.stub() as stub:
        for call in (
            lambda: stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="model")),
            lambda: stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="model")),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                call()
            assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert stub.ModelReady(pb.ModelReadyRequest(name="model")).ready
    assert predictor.predict({"values": [1]}).json() == {"predictions": [2.0]}
