"""A training from its parts to the finished VLM, written as an ordinary folder: one stage after the other."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from transformers import AutoModelForImageTextToText

from fgdiag.assemble import write_assembled
from fgdiag.errors import RunMismatch
from fgdiag.loading import load, load_processor
from fgdiag.memory import keep_freed_memory
from fgdiag.placement import device_for
from fgdiag.precision import fast_dtype
from fgdiag.sources import source_of
from fgdiag.store import locked, same_settings
from fgdiag.training import checkpoint
from fgdiag.training.checkpoint import Progress
from fgdiag.training.lessons import Teaching
from fgdiag.training.parts import check_assembled, learnt
from fgdiag.training.plan import Plan, PlanNotUsable
from fgdiag.training.school import School
from fgdiag.training.stage import RunningStage

FOLDER = "training"


def train(
    model: str | Path,
    teachings: Sequence[Teaching],
    out: str | Path,
    plan: Plan,
    *,
    device: str = "auto",
    features: str | Path | None = None,
) -> Path:
    """Train an assembled VLM and write the result as a `transformers` folder, in bfloat16.

    Parameters
    ----------
    model
        Folder that `fgdiag assemble` has written, or one that was trained from it.
    teachings
        What is learnt from.
    out
        Folder of the trained VLM. `out/training` keeps features, checkpoints and `history.csv`; called again after an
        interruption, the training goes on from its last checkpoint, and ends with the same weights (where a stage's
        length is given in minutes, with those that the same steps would give).
    plan
        The recipe.
    device
        `auto`, `cpu`, or one GPU, such as `cuda:1`. Under `torchrun` each process takes its share of every batch.
    features
        Folder of what a frozen encoder puts out for the images, by default in `out/training`. Trainings of VLMs that
        share an encoder can share it.

    Returns
    -------
    Path
        `out`, which `AutoModelForImageTextToText.from_pretrained` opens.

    Raises
    ------
    ModelNotFound
        There is no such model or device.
    ModelNotSupported
        The model is not built as `fgdiag assemble` builds one.
    ImagesNotUsable
        There is no readable training image.
    PlanNotUsable
        A stage has patience, and there is no readable validation image; or a batch has fewer images than there are
        processes.
    TrainingDiverged
        The loss is no longer a number.
    RunBusy
        Another process is training in `out`.
    RunMismatch
        `out` holds a training under another plan, of another model or of other images, or a model alone.
    """
    out = Path(out)
    if (out / "config.json").exists() and not (out / FOLDER / "plan.json").exists():
        raise RunMismatch(
            f"{out} holds a model that was not trained there; give another folder for this one."
        )
    accelerator = _accelerator(device, plan)
    # One process writes; the others would wait for its lock.
    with locked(out / FOLDER) if accelerator.is_main_process else nullcontext():
        run = Training(str(model), teachings, out, plan, accelerator, features)
        run.all_stages()
        if accelerator.is_main_process:
            run.write()
    accelerator.wait_for_everyone()
    return out


def _accelerator(device: str, plan: Plan) -> Accelerator:
    place = device_for(device)
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)  # accelerate takes the current one where a process is alone
    # An encoder has weights that no image token depends on, such as DINOv2's mask token and last norm.
    encoder_learns = any("encoder" in stage.train for stage in plan.stages)
    meeting = DistributedDataParallelKwargs(find_unused_parameters=encoder_learns)
    return Accelerator(cpu=place.type == "cpu", kwargs_handlers=[meeting])


class Training:
    """The state of one training."""

    def __init__(
        self,
        name: str,
        teachings: Sequence[Teaching],
        out: Path,
        plan: Plan,
        accelerator: Accelerator,
        features: str | Path | None = None,
    ) -> None:
        self.plan, self.out, self.accelerator = plan, out, accelerator
        self.work = out / FOLDER
        self.work.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        source = source_of(name)
        self.model = load(AutoModelForImageTextToText, source, {"dtype": torch.float32}).eval()
        check_assembled(self.model, name)
        self.processor = load_processor(source, {})
        self.school = School(self.processor, teachings, plan, Path(features or self.work))
        self._refuse_empty_shares()
        asked = {"model": name, "images": [one.digest for one in teachings], **plan.json()}
        if accelerator.is_main_process:
            same_settings(self.work / "plan.json", asked, "a training")
        self.fast = fast_dtype(accelerator.device)
        self.model.to(accelerator.device)
        if accelerator.device.type == "cpu":
            # The backward pass of the fused attention takes longer than these short sequences are worth.
            self.model.get_decoder().set_attn_implementation("eager")

    def _refuse_empty_shares(self) -> None:
        """Refuse a batch of which some process would have no image."""
        images, processes = self.school.at(None).batch_size, self.accelerator.num_processes
        if images < processes:
            raise PlanNotUsable(
                f"A batch of {images} images cannot be shared by {processes} processes; give more training images or "
                "a larger batch_size, or start fewer processes."
            )

    def all_stages(self) -> None:
        """Do every stage that is not done yet."""
        for number, stage in enumerate(self.plan.stages):
            done = self.work / f"stage-{number + 1}.safetensors"
            if done.exists():
                checkpoint.load(done, learnt(self.model, [stage]))
                continue
            RunningStage(self, number, stage).run()
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                checkpoint.save(done, Progress(number), learnt(self.model, [stage]))
                for passed in ("checkpoint", "best"):
                    (self.work / f"{passed}.safetensors").unlink(missing_ok=True)
            self.accelerator.wait_for_everyone()

    def write(self) -> None:
        """Write the VLM."""
        self.model.get_decoder().set_attn_implementation("sdpa")
        write_assembled(self.model, self.processor, self.out)
