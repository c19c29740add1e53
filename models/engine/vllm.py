"""An engine in this process: vLLM. Only this file, `nucleus`, `last_insertion` and `cpu_kernels`
know it; import it late, it takes seconds.

vLLM runs the model in a process of its own and ends it with this one. The settings that must be
there before this process starts are in `environment`.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

from vllm.config import ModelConfig, SpeculativeConfig, StructuredOutputsConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMValidationError
from vllm.inputs import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.tokenizers import TokenizerLike
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

from models.contract.prompt import Message, Piece, Prompt
from models.engine.environment import has_cpu_vllm
from models.engine.interface import (
    Chunk,
    EngineDead,
    EngineError,
    EngineOverloaded,
    FinishReason,
    Generation,
    Load,
    ModelIdentity,
    PromptRefused,
    PromptTooLong,
    Sampling,
    Usage,
)
from models.engine.last_insertion import LastInsertion, last_insertion_arguments
from models.engine.lifeline import Lifeline
from models.engine.nucleus import Nucleus, is_nucleus, nucleus_arguments
from models.engine.tokens import AnswerDecoder, PromptTokenizer
from models.provision import ServableModel

_GRAMMARS = "xgrammar"
_CPU_KV_CACHE_GIB, _CPU_SEQUENCES = 2.0, 32
_OFFLINE_KV_CACHE_GIB, _OFFLINE_SEQUENCES = 4.0, 128
_CONTEXT = 8192
_GIB = 1 << 30
_FINISH_REASONS = {"stop", "length", "abort"}
_ABORT_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How vLLM serves the model; what is None is chosen for the device.

    max_model_len: tokens of context, at most what the model has (None: 8192). max_num_seqs:
    requests that run at once; others wait (None: 32 on a CPU, vLLM's own choice on a GPU).
    is_offline: nobody waits for an answer, only for all of them; a CPU then runs 128 at once, with
    4 GiB for keys and values.
    kv_cache_gib: memory for keys and values (a CPU's default is 2; a GPU takes what
    `gpu_memory_utilization` leaves). enforce_eager: without compilation (a CPU's default:
    compiling takes minutes there). extra: any other of vLLM's `AsyncEngineArgs`.
    """

    max_model_len: int | None = None
    max_num_seqs: int | None = None
    is_offline: bool = False
    kv_cache_gib: float | None = None
    dtype: str = "auto"
    enforce_eager: bool | None = None
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    max_num_batched_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class _SchedulerGauge(StatLoggerBase):
    """How many requests the scheduler ran in its latest step."""

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        self.running = 0

    def record(self, scheduler_stats: SchedulerStats | None, *_: object, **__: object) -> None:
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs

    def log_engine_initialized(self) -> None:
        pass


class _OwnedEngine(AsyncLLM):
    """Ends when its owner says so: vLLM's own finaliser fails in an interpreter that is exiting."""

    def __del__(self) -> None:
        pass


class _OwnSampling(SamplingParams):
    """Holds a grammar of this project, which need not be parsed to see whether it is one.

    vLLM parses every request's in this process's loop: 2 ms with 100 ads. Its engine compiles it
    all the same, once for each list of ads.
    """

    def verify(
        self,
        model_config: ModelConfig,
        speculative_config: SpeculativeConfig | None,
        structured_outputs_config: StructuredOutputsConfig | None,
        tokenizer: TokenizerLike | None,
    ) -> None:
        constraint, config = self.structured_outputs, structured_outputs_config
        if constraint is not None and config is not None and config.backend == _GRAMMARS:
            constraint._backend = _GRAMMARS
            config = None
        super().verify(model_config, speculative_config, config, tokenizer)


class VllmEngine:
    """vLLM as an `Engine`. Make it with `start`, in the event loop that it will serve."""

    def __init__(
        self, engine: AsyncLLM, model: ModelIdentity, gauges: list[_SchedulerGauge]
    ) -> None:
        self._engine = engine
        self._model = model
        self._gauges = gauges
        self._tokenizer = PromptTokenizer(engine.get_tokenizer())
        self._processors = frozenset(engine.model_config.logits_processors or ())
        self._is_tracing = engine.observability_config.otlp_traces_endpoint is not None

    @classmethod
    async def start(
        cls,
        model: ServableModel,
        *,
        options: VllmOptions | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Self:
        """Load `model` and return when it answers: about 20 s for a small model on a CPU.

        Raises EngineError when vLLM does not start; its own log says why.
        """
        gauges: list[_SchedulerGauge] = []

        def gauge(config: VllmConfig, index: int = 0) -> StatLoggerBase:
            gauges.append(_SchedulerGauge(config, index))
            return gauges[-1]

        progress(f"loading {model.name} into vLLM")
        try:
            # In a thread, so that the loop stays free for the seconds that it takes.
            engine = await asyncio.to_thread(
                lambda: _OwnedEngine.from_engine_args(
                    _arguments(model, options or VllmOptions()), stat_loggers=[gauge]
                )
            )
        except Exception as error:
            raise EngineError(f"vLLM cannot serve {model.name}: {error}") from error
        try:
            started = cls(engine, _identity(model, engine), gauges)
        except ValueError as unfit:
            engine.shutdown()
            raise EngineError(f"{model.name} cannot be served: {unfit}") from unfit
        await engine.collective_rpc("end_with", args=(os.getpid(),))
        if has_cpu_vllm():
            await engine.collective_rpc("give_way")
        progress(f"warming {model.name} up")
        await started._warm_up()
        return started

    @property
    def model(self) -> ModelIdentity:
        return self._model

    @property
    def max_model_len(self) -> int:
        return int(self._engine.model_config.max_model_len)

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        return len(self._encode(prompt, at_most))

    def _encode(self, prompt: Prompt, at_most: int | None = None) -> list[int]:
        try:
            return self._tokenizer.encode(prompt, at_most)
        except ValueError as refused:
            raise PromptRefused(str(refused)) from refused

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        tokens = self._encode(generation.prompt)
        room = self.max_model_len - len(tokens)
        if room < 1:
            raise PromptTooLong(
                f"The prompt has {len(tokens)} tokens; the model's context is {self.max_model_len}"
            )
        if _is_past(generation.deadline_at):
            yield Chunk("", 0, "deadline", Usage(len(tokens), 0, 0))
            return
        outputs = self._engine.generate(
            tokens_input(tokens),
            self._sampling_params(generation, room),
            generation.request_id,
            trace_headers=generation.trace_headers if self._is_tracing else None,
        )
        decoder = self._tokenizer.answer_decoder(tokens)
        try:
            # Closing vLLM's generator aborts the request there.
            async with aclosing(outputs), self._ended_at_deadline(generation) as is_over:
                async for output in outputs:
                    if (chunk := _chunk(output, decoder, len(tokens))) is not None:
                        if chunk.finish_reason == "abort" and is_over.is_set():
                            chunk = replace(chunk, finish_reason="deadline")
                        yield chunk
        except EngineError:
            raise
        except Exception as error:
            raise _translated(error) from error

    def _sampling_params(self, generation: Generation, room: int) -> SamplingParams:
        sampling, grammar = generation.sampling, generation.grammar
        kind = RequestOutputKind.DELTA if generation.is_streamed else RequestOutputKind.FINAL_ONLY
        max_tokens = min(sampling.max_tokens, room)
        arguments: dict[str, Any] = {"top_k": sampling.top_k, "top_p": sampling.top_p}
        if Nucleus in self._processors and is_nucleus(
            **arguments, temperature=sampling.temperature
        ):
            arguments = nucleus_arguments(**arguments)
        if LastInsertion in self._processors and grammar and generation.insertions:
            longest = self._tokenizer.longest(generation.insertions)
            extra = arguments.get("extra_args", {})
            arguments["extra_args"] = extra | last_insertion_arguments(max_tokens, longest)
        return _OwnSampling(
            **arguments,
            temperature=sampling.temperature,
            max_tokens=max_tokens,
            seed=sampling.seed,
            logit_bias=dict(sampling.logit_bias) if sampling.logit_bias else None,
            structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
            output_kind=kind,
            detokenize=False,  # vLLM would decode the whole prompt first, in this process's loop
        )

    def load(self) -> Load:
        # The count of unfinished requests is exact at once; the scheduler's only at its steps.
        unfinished = self._engine.get_num_unfinished_requests()
        running = min(unfinished, sum(gauge.running for gauge in self._gauges))
        return Load(running=running, waiting=unfinished - running)

    async def check(self) -> None:
        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            raise EngineDead("vLLM has died") from error

    async def close(self) -> None:
        """End vLLM's process. What is being generated ends with EngineDead."""
        # First, or vLLM would report the orderly end as a failure.
        if self._engine.output_handler is not None:
            self._engine.output_handler.cancel()
        self._engine.output_processor.propagate_error(EngineDeadError())
        await asyncio.to_thread(self._engine.shutdown)

    @asynccontextmanager
    async def _ended_at_deadline(self, generation: Generation) -> AsyncGenerator[asyncio.Event]:
        """Abort the request at its deadline; vLLM then gives out what was written so far.

        Yields what is set from the deadline on: timers may be a millisecond early, so the clock
        cannot tell.
        """
        is_over = asyncio.Event()
        if generation.deadline_at is None:
            yield is_over
            return
        ender = asyncio.create_task(
            self._end(generation.request_id, generation.deadline_at, is_over)
        )
        try:
            yield is_over
        finally:
            ender.cancel()

    async def _end(self, request_id: str, at: float, is_over: asyncio.Event) -> None:
        await asyncio.sleep(at - time.monotonic())
        is_over.set()
        with suppress(EngineDeadError):  # which the answer's own stream tells
            while True:  # the first may come before vLLM knows of the request
                await self._engine.abort(request_id)
                await asyncio.sleep(_ABORT_AGAIN_S)

    async def _warm_up(self) -> None:
        """Generate a few tokens, so that no request pays for what happens once."""
        said = (Piece("Hello", recurs=False),)
        prompt = Prompt("warm-up", (Message("system", said), Message("user", said)))
        generation = Generation("warm-up", prompt, Sampling(max_tokens=4), "root ::= [^@]*")
        async with aclosing(self.generate(generation)) as chunks:
            async for _ in chunks:
                pass


def _arguments(model: ServableModel, options: VllmOptions) -> AsyncEngineArgs:
    on_cpu = has_cpu_vllm()
    eager = on_cpu if options.enforce_eager is None else options.enforce_eager
    memory = _OFFLINE_KV_CACHE_GIB if options.is_offline else _CPU_KV_CACHE_GIB
    kv_cache_gib = options.kv_cache_gib or (memory if on_cpu else None)
    context = _context(model.path, options.max_model_len or _CONTEXT)
    # vLLM 0.32 dies on a CPU when it reads the prompt of a seeded request in several steps ("CPU
    # Generator does not use offset"), so there every prompt is read in one.
    at_once = _OFFLINE_SEQUENCES if options.is_offline else _CPU_SEQUENCES
    sequences = options.max_num_seqs or (at_once if on_cpu else None)
    one_step = context + sequences if on_cpu and sequences else None
    arguments: dict[str, Any] = {
        "model": model.path,
        "served_model_name": model.name,
        "max_model_len": context,
        "max_num_seqs": sequences,
        "max_num_batched_tokens": options.max_num_batched_tokens or one_step,
        "enable_chunked_prefill": not on_cpu,
        "dtype": options.dtype,
        "enforce_eager": eager,
        "tensor_parallel_size": options.tensor_parallel_size,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_memory_bytes": int(kv_cache_gib * _GIB) if kv_cache_gib else None,
        # Others read a grammar differently, or far more slowly.
        "structured_outputs_config": {"backend": _GRAMMARS},
        "enable_log_requests": False,
        "use_tqdm_on_load": False,
        "worker_extension_cls": f"{Lifeline.__module__}.{Lifeline.__qualname__}",
        # vLLM seeds this whole process's random numbers with it, by default always alike.
        "seed": secrets.randbits(31),
    }
    if on_cpu and "speculative_config" not in options.extra:  # vLLM refuses both together
        arguments["logits_processors"] = [LastInsertion, Nucleus]
    if on_cpu and eager:
        from models.engine.cpu_kernels import PRIORITY, CpuWorker

        arguments["ir_op_priority"] = dict(PRIORITY)
        arguments["worker_extension_cls"] = f"{CpuWorker.__module__}.{CpuWorker.__qualname__}"
    return AsyncEngineArgs(**(arguments | dict(options.extra)))


def _context(path: str, wanted: int) -> int:
    """Return `wanted`, or the model's own context where that is known and shorter."""
    try:
        config = json.loads((Path(path) / "config.json").read_text())
        return min(wanted, int(config["max_position_embeddings"]))
    except (OSError, KeyError):
        return wanted


def _identity(model: ServableModel, engine: AsyncLLM) -> ModelIdentity:
    commit = getattr(engine.model_config.hf_config, "_commit_hash", None)
    return ModelIdentity(model.name, model.revision or commit or "unknown")


def _is_past(deadline_at: float | None) -> bool:
    return deadline_at is not None and time.monotonic() >= deadline_at


def _chunk(output: RequestOutput, decoder: AnswerDecoder, prompt_tokens: int) -> Chunk | None:
    """Return what `output` adds, or None where that is nothing."""
    delta = output.outputs[0]
    if not output.finished:
        if not delta.token_ids:
            return None
        return Chunk(decoder.text(delta.token_ids), len(delta.token_ids))
    if delta.finish_reason not in _FINISH_REASONS:
        raise EngineError(
            f"vLLM ended the answer: {delta.finish_reason}; its log says why, as where a grammar"
            " cannot be compiled"
        )
    stats = output.metrics
    # The token that ends an answer is no part of it.
    said = delta.token_ids[:-1] if delta.finish_reason == "stop" else delta.token_ids
    return Chunk(
        decoder.text(said),
        len(delta.token_ids),
        cast("FinishReason", delta.finish_reason),
        Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=output.num_cached_tokens or 0,
            completion_tokens=stats.num_generation_tokens if stats else 0,
        ),
        scheduled_at=(stats.scheduled_ts or None) if stats else None,
        first_token_at=(stats.first_token_ts or None) if stats else None,
    )


def _translated(error: Exception) -> EngineError:
    """Return what `error`, vLLM's, means to a caller."""
    match error:
        case EngineDeadError():
            return EngineDead("vLLM has died")
        case QueueOverflowError() | MaxQueuedTokensError():
            return EngineOverloaded(str(error))
        case VLLMValidationError(parameter="input_tokens" | "input_text"):
            return PromptTooLong(str(error))
        case _:
            return EngineError(f"{type(error).__name__}: {error}")
