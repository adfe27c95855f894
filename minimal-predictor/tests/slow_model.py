"""A model of a user's own, slow and answering with text, behind this package's server."""

import asyncio

from kserve import InferOutput, InferRequest, InferResponse, Model

from minimal_predictor.server import serve

WORK_S = 3


class Slow(Model):
    """Says when it works and when it stops."""

    def load(self) -> bool:
        self.ready = True
        return True

    async def predict(self, payload: object, headers: object = None) -> object:
        print("working", flush=True)
        await asyncio.sleep(WORK_S)
        if isinstance(payload, InferRequest):
            output = InferOutput("answer", [1], "BYTES", ["late"])
            return InferResponse(payload.id, self.name, [output])
        return {"answer": "late"}

    def stop(self) -> None:
        print("stopped", flush=True)


if __name__ == "__main__":
    model = Slow("slow")
    model.load()
    serve(model)
