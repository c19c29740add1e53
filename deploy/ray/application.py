"""Each replica is the whole service with an engine of its own, in a process of its own.

    serve deploy deploy/ray/serve.yaml       # to a running cluster; again after every change

Ray Serve balances requests, starts and ends replicas with the requests under way, and replaces the
ones whose `check_health` fails. Everything else is `create_app`'s, and its settings come from the
environment: `env_vars` in the configuration file.
"""

import os

from fastapi import FastAPI
from ray import serve

from models.engine.environment import process_environment
from models.engine.interface import EngineDead
from service.app import create_app
from service.life import Life
from service.logs import configure_logs
from service.settings import load_settings


@serve.ingress()
class Replica:
    """What Ray starts several times over."""

    def __init__(self) -> None:
        self.life = Life()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application; Ray runs its lifespan, and is ready when that is."""
        settings = load_settings()
        configure_logs(settings.log.level)
        return create_app(settings, life=self.life)

    def check_health(self) -> None:
        """Raise EngineDead where only another process helps."""
        if self.life.is_engine_dead:
            raise EngineDead("the engine has died")


def build(arguments: dict[str, float]) -> serve.Application:
    """The application; Ray calls this with `args` of the configuration file.

    arguments: what a replica occupies, `num_cpus` or `num_gpus`. They come this way as the file's
    own `ray_actor_options` would take the place of these, and of the environment with them.
    """
    environment = {"env_vars": process_environment(os.environ)}
    options = {**arguments, "runtime_env": environment}
    return serve.deployment(Replica, ray_actor_options=options).bind()
