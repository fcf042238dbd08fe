"""What `--executor slurm` takes: its settings, as flags and in Python."""

import re
from typing import Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

# options of sbatch that the suite or submitit chooses
OURS = ("array", "error", "job-name", "open-mode", "output", "requeue", "signal", "time", "wrap")


class SlurmSettings(BaseModel):
    partition: str | None = Field(None, description="where jobs are queued; else the cluster's default")
    account: str | None = Field(None, description="who pays")
    qos: str | None = Field(None, description="quality of service")
    time_min: int = Field(60, ge=1, description="minutes until a job is stopped and, its run saved, queued again")
    cpus: int | None = Field(None, ge=1, description="cores of each run; left out: as many as its threads")
    gpus: int = Field(0, ge=0, description="GPUs of each run")
    gpu_type: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="their type, as a100")
    mem_gb: float | None = Field(None, gt=0, description="memory of each run")
    requeues: int = Field(10, ge=0, description="how often a job that came to its time limit is queued again")
    sbatch: list[str] = Field([], description="an option of sbatch, as constraint=a100 or exclusive; repeatable")
    setup: list[str] = Field([], description="a line of shell before each run, as 'module load cuda'; repeatable")
    detach: bool = Field(False, description="submit and end; bench status --runs tells of the jobs")
    cluster: Literal["slurm", "local"] = Field("slurm", description="local: processes here, to try it out")

    @field_validator("sbatch")
    @classmethod
    def _options_of_sbatch(cls, value: list[str]) -> list[str]:
        for text in value:
            name = split(text)[0]
            if not re.fullmatch(r"[a-z][a-z-]*", name):
                raise ValueError("write an option of sbatch by its long name, as constraint=a100 or exclusive")
            if name in OURS:
                raise ValueError(f"{name} is chosen by the suite; leave it out")
        return value

    @model_validator(mode="after")
    def _that_there_is_a_cluster(self) -> Self:
        if self.gpu_type and not self.gpus:
            raise ValueError("gpu_type needs gpus above 0")
        if self.cluster == "local" and (self.sbatch or self.setup or self.gpu_type):
            raise ValueError("sbatch, setup and gpu_type are for a cluster; leave them out with cluster=local")
        return self


def split(text: str) -> tuple[str, str | bool]:
    """An option of sbatch: its name, and its value or that it is a flag."""
    name, equals, value = text.removeprefix("--").partition("=")
    return name.strip(), value.strip() if equals else True
