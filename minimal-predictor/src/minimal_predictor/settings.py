"""The predictor's settings, read once and checked at the start."""

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from minimal_predictor.bad_input import show
from minimal_predictor.inputs import DECIMAL

REMEDIES = {
    "MODEL_NAME": "letters, digits, '.', '_' and '-', such as model",
    "FACTOR": "a finite number such as 2",
}


class BadSettings(ValueError):
    """The settings do not allow a start; the message has one line for each bad one."""


def _decimal(value: object) -> object:
    """Refuse what only Python calls a number ("1_000", " 2"), before pydantic reads it."""
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError("not a decimal number")
    return value


class Settings(BaseSettings):
    """What the environment says: MODEL_NAME and FACTOR."""

    model_config = SettingsConfigDict(protected_namespaces=(), extra="ignore")

    model_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,253}$")] = "model"
    factor: Annotated[float, BeforeValidator(_decimal), Field(allow_inf_nan=False)] = 2.0


def read_settings(model_name: str | None = None) -> Settings:
    """The settings of the environment; a model name given as an argument wins over MODEL_NAME.

    Raises BadSettings, naming the variable, its value and the remedy.
    """
    try:
        return Settings() if model_name is None else Settings(model_name=model_name)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            variable = str(problem["loc"][0]).upper()
            given = show(problem["input"])
            lines.append(f"{variable} is {given}; set it to {REMEDIES[variable]}.")
        raise BadSettings("\n".join(lines)) from None
