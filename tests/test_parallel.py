"""One process and two."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from m2vsl.parallel import gather_with_gradient, is_main, main_first, mean, of_each, rank, world


def test_a_single_process_is_the_whole_world() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert (world(), rank(), is_main()) == (1, 0, True)
    assert gather_with_gradient(x) is x


def _weights() -> torch.Tensor:
    return torch.arange(8.0).view(4, 2) + 1


def _worker(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    x = (torch.tensor([[1.0, 2.0], [3.0, 4.0]]) + 10 * number).t().requires_grad_()  # not contiguous
    gathered = gather_with_gradient(x)
    ((number + 1) * _weights() * gathered**2).sum().backward()  # each process has a loss of its own
    uneven = gather_with_gradient(torch.full((number, 2), float(number)))  # no row of the first, one of the second
    means = mean(torch.tensor([float(number)])), of_each({"rank": number})
    with main_first():
        order = sorted(path.name for path in Path(folder).glob("was-*"))
        Path(folder, f"was-{number}").touch()
    told = (world(), rank(), is_main(), x.detach(), gathered.detach(), x.grad, uneven, means, order)
    torch.save(told, f"{folder}/{number}.pt")
    dist.destroy_process_group()


def test_two_processes_gather_in_rank_order_and_sum_their_gradients(tmp_path: Path) -> None:
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    told = [torch.load(tmp_path / f"{number}.pt") for number in (0, 1)]
    everything = torch.cat([told[0][3], told[1][3]])
    expected = (1 + 2) * _weights() * 2 * everything  # d/dx of both losses
    for number, (size, place, main, _, gathered, gradient, uneven, means, order) in enumerate(told):
        assert uneven.tolist() == [[1.0, 1.0]] and means == (torch.tensor([0.5]), [{"rank": 0}, {"rank": 1}])
        assert order == ["was-0"][:number], "the first goes first"
        assert (size, place, main) == (2, number, number == 0)
        assert torch.equal(gathered, everything)
        assert torch.equal(gradient, expected[2 * number : 2 * number + 2])
