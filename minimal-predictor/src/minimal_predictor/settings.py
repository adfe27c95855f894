"""The predictor's settings, read once and checked at the start."""

from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from minimal_predictor.inputs import DecimalNumber, show

PathSegment = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,253}$")]


class Settings(BaseSettings):
    """What the environment says; a field's description is the remedy for a bad value."""

    model_config = SettingsConfigDict(protected_namespaces=(), extra="ignore")

    model_name: PathSegment = Field(
        default="model", description="letters, digits, '.', '_' and '-', such as model"
    )
    factor: DecimalNumber = Field(default=2.0, description="a finite number such as 2")


def read_settings(model_name: str | None = None) -> Settings:
    """The settings of the environment; a model name given as an argument wins over MODEL_NAME.

    Exits with one line for each bad value, naming the variable, the value and the remedy.
    """
    try:
        return Settings() if model_name is None else Settings(model_name=model_name)
    except ValidationError as error:
        bad = {str(problem["loc"][0]): show(problem["input"]) for problem in error.errors()}
        remedy = {name: field.description for name, field in Settings.model_fields.items()}
        lines = (f"{name.upper()} is {bad[name]}; set it to {remedy[name]}." for name in bad)
        raise SystemExit("\n".join(lines)) from None
