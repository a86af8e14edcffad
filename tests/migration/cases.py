# ruff: noqa: E501
"""Fixtures of rules: what is found and becomes of it, what is not found, aliases, portable code.

Each row is (code, what it becomes; None: it stays). `import torch` stands before each.
"""

FOUND: dict[str, list[tuple[str, str | None]]] = {
    "device-literal": [
        ("x.to('cuda')", "x.to(_device.type)"),
        ("torch.zeros(2, device='cuda')", "torch.zeros(2, device=_device.type)"),
        ("x.to('cuda:1')", "x.to(_device.name(1))"),
        (
            "from torch import device as d\nd('cuda')",
            "from torch import device as d\nd(_device.type)",
        ),
        ("torch.load(p, map_location='cuda')", "torch.load(p, map_location=_device.type)"),
        (
            "d = torch.device('cuda' if ok else 'cpu')",
            "d = torch.device(_device.type if ok else 'cpu')",
        ),
    ],
    "device-variable": [
        ("device = 'cuda'", "device = _device.type"),
        ("def f(device='cuda'): pass", "def f(device=_device.type): pass"),
        (
            "p.add_argument('--device', default='cuda')",
            "p.add_argument('--device', default=_device.type)",
        ),
        ("self.device: str = 'cuda:0'", "self.device: str = _device.name(0)"),
        ("c = {'device': 'cuda'}", "c = {'device': _device.type}"),
    ],
    "autocast-device": [
        ("torch.autocast('cuda')", "torch.autocast(_device.accelerator)"),
        ("torch.autocast(device_type='cuda')", "torch.autocast(device_type=_device.accelerator)"),
        (
            "from torch.amp import autocast as a\na('cuda')",
            "from torch.amp import autocast as a\na(_device.accelerator)",
        ),
        ("torch.amp.GradScaler('cuda')", "torch.amp.GradScaler(_device.accelerator)"),
    ],
    "device-with-index": [
        ("torch.device('cuda', 1)", "_device.device(1)"),
        ("torch.device('cuda', rank)", "_device.device(rank)"),
        ("torch.device('cuda', index=i)", "_device.device(i)"),
        ("import torch as t\nt.device('cuda', 0)", "import torch as t\n_device.device(0)"),
    ],
    "device-comparison": [
        ("import my_cuda\nif x.device.type == 'cuda': my_cuda.g(x)", None),
        ("x.device.type == 'cuda'", "x.device.type == _device.accelerator"),
        ("if 'cuda' in device: pass", "if _device.accelerator in device: pass"),
        ("device != 'cuda'", "device != _device.accelerator"),
        ("device_type in ('cuda', 'mps')", "device_type in (_device.accelerator, 'mps')"),
        ("impl == 'cuda'", None),
        ("gpu_arch_type == 'cuda'", None),
        ("if impl == 'cuda' and x.device.type == 'cuda' and ready(): f(x)", None),
    ],
    "device-prefix": [
        ("device.startswith('cuda')", "device.startswith(_device.accelerator)"),
        ("str(d).startswith('cuda:')", 'str(d).startswith(_device.accelerator + ":")'),
        ("name.split('cuda:')", 'name.split(_device.accelerator + ":")'),
        ("device.find('cuda')", "device.find(_device.accelerator)"),
    ],
    "device-format": [
        ("f'cuda:{i}'", "f'{_device.type}:{i}'"),
        ("'cuda:%d' % i", "(_device.type + ':%d') % i"),
        ("'cuda:{}'.format(i)", "(_device.type + ':{}').format(i)"),
        ("'cuda:' + str(i)", "(_device.type + ':') + str(i)"),
        ('torch.device(f"cuda:{rank}")', 'torch.device(f"{_device.type}:{rank}")'),
    ],
    "device-choices": [
        (
            "p.add_argument('--device', choices=['cuda', 'cpu'])",
            "p.add_argument('--device', choices=[_device.accelerator, 'cpu'])",
        ),
        ("DEVICES = ('cpu', 'cuda')", "DEVICES = ('cpu', _device.accelerator)"),
        ("for device in ['cpu', 'cuda']: pass", "for device in ['cpu', _device.accelerator]: pass"),
        ("known = ['cuda', 'npu']", None),
    ],
    "device-map": [
        (
            "torch.load(p, map_location={'cuda:0': 'cuda:1'})",
            'torch.load(p, map_location={_device.accelerator + ":0": _device.name(1)})',
        ),
        (
            "torch.load(p, map_location={'cuda:0': f'cuda:{rank}'})",
            "torch.load(p, map_location={_device.accelerator + \":0\": f'{_device.type}:{rank}'})",
        ),
        (
            "torch.load(p, map_location={'cuda:%d' % 0: 'cuda:%d' % r, 'cuda:1': 'cpu'})",
            "torch.load(p, map_location={(_device.type + ':%d') % 0: (_device.type + ':%d') % r, _device.accelerator + \":1\": 'cpu'})",
        ),
        ("m = {'cuda:0': 'cuda:1'}", None),
        ("m = {'cuda:0': f'cuda:{rank}'}", None),
    ],
    "device-key": [
        ("t = {'cuda': 1, 'cpu': 2}", None),
        ("t['cuda']", None),
        ("{'cuda': f}[kind]", None),
        ("a = table['cuda'].b", None),
    ],
    "cuda-string": [
        ("run('cuda')", None),
        ("impl = 'cuda'", None),
        ("g(kind='cuda:0')", None),
        ("h(lambda: 'cuda')", None),
    ],
    "cuda-method": [
        ("x.cuda()", "x.to(_device.type)"),
        ("x.cuda(1)", "x.to(_device.device(1))"),
        ("x.cuda(non_blocking=True)", "x.to(_device.type, non_blocking=True)"),
        ("x.cuda(gpu, True)", "x.to(_device.device(gpu), non_blocking=True)"),
        ("x.cuda(device=d)", "x.to(device=_device.device(d))"),
        ("a = b.half().cuda().c", "a = b.half().to(_device.type).c"),
        ("x.cuda(None)", "x.to(_device.type)"),
    ],
    "cuda-method-uncalled": [
        ("f = model.cuda", None),
        ("map(net.cuda, xs)", None),
        ("g(model.cuda)", None),
        ("h = [t.cuda]", None),
    ],
    "cuda-method-defined": [
        ("class A:\n    def cuda(self): pass", None),
        ("class A(B):\n    def cuda(self, d=None): return self", None),
        ("class A:\n    def to(self): pass\n    def cuda(self): pass", None),
        ("class A(torch.nn.Module):\n    def cuda(self): return 1", None),
    ],
    "is-cuda": [
        ("x.is_cuda", "_device.is_accelerated(x)"),
        ("if not x.is_cuda: pass", "if not _device.is_accelerated(x): pass"),
        ("a.b.is_cuda and c", "_device.is_accelerated(a.b) and c"),
        (
            "assert next(m.parameters()).is_cuda",
            "assert _device.is_accelerated(next(m.parameters()))",
        ),
        ("from .triton_ops import f\nif x.is_cuda: f(x)", None),
        ("from .._ext import roi\nif not x.is_cuda: g(x)\nelse: roi.go(x)", None),
        ("def dtw_cuda(x):\n    from .triton_ops import k\nif x.is_cuda: dtw_cuda(x)", None),
        ("from triton_ops import k\nif x.is_cuda: k[(1,)](x)", None),
        ("from a import triton_softmax\nif x.is_cuda: triton_softmax(x)", None),
        (
            "import my_cuda\ndef f(x):\n    if not x.is_cuda: return x\n    return my_cuda.g(x)",
            None,
        ),
        ("import my_cuda\ndef g(x): return my_cuda.g(x)\ny = x.is_cuda and g(x)", None),
        ("import triton\n@triton.jit\ndef k(x): pass\nif x.is_cuda: k[(1,)](x)", None),
        ("import roi_cuda\ny = roi_cuda.go(x) if x.is_cuda else x", None),
        (
            "from utils import move_to_cuda\nif x.is_cuda: move_to_cuda(y)",
            "from utils import move_to_cuda\nif _device.is_accelerated(x): move_to_cuda(y)",
        ),
    ],
    "device-index": [
        ("x.to(0)", None),
        ("torch.zeros(1, device=0)", "torch.zeros(1, device=_device.device(0))"),
        ("model.to(1)", None),
        ("f(device=3)", None),
    ],
    "tensor-type-method": [
        ("x.type(torch.cuda.FloatTensor)", "x.to(_device.type, torch.float32)"),
        ("x.type('torch.cuda.LongTensor')", "x.to(_device.type, torch.int64)"),
        (
            "import torch as t\nx.type(t.cuda.HalfTensor)",
            "import torch as t\nx.to(_device.type, t.float16)",
        ),
        ("f(x).type(torch.cuda.ByteTensor)", "f(x).to(_device.type, torch.uint8)"),
    ],
    "default-tensor-type": [
        (
            "torch.set_default_tensor_type('torch.cuda.FloatTensor')",
            "_device.set_default_tensor_type(torch.float32)",
        ),
        (
            "torch.set_default_tensor_type(torch.cuda.HalfTensor)",
            "_device.set_default_tensor_type(torch.float16)",
        ),
        (
            "import torch as t\nt.set_default_tensor_type(t.cuda.FloatTensor)",
            "import torch as t\n_device.set_default_tensor_type(t.float32)",
        ),
        (
            "from torch import set_default_tensor_type as s\ns('torch.cuda.DoubleTensor')",
            "from torch import set_default_tensor_type as s\n_device.set_default_tensor_type(torch.float64)",
        ),
    ],
    "tensor-type-string": [
        ("t = 'torch.cuda.FloatTensor'", None),
        ("x.type() == 'torch.cuda.HalfTensor'", None),
        ("T = ['torch.cuda.LongTensor']", None),
        ("f('torch.cuda.ByteTensor')", None),
    ],
    "tensor-type-check": [
        ("isinstance(x, torch.cuda.FloatTensor)", None),
        ("isinstance(x, (torch.cuda.FloatTensor, int))", None),
        ("issubclass(k, torch.cuda.HalfTensor)", None),
        ("import torch as t\nisinstance(x, t.cuda.LongTensor)", None),
    ],
    "cuda-by-name": [
        ("getattr(torch, 'cuda')", None),
        ("hasattr(torch, 'cuda')", None),
        ("getattr(torch.cuda, 'memory_stats')", None),
        ("hasattr(torch.cuda, 'amp')", None),
    ],
    "nccl-backend": [
        (
            "torch.distributed.init_process_group('nccl')",
            "torch.distributed.init_process_group(_device.backend)",
        ),
        (
            "import torch.distributed as dist\ndist.init_process_group(backend='nccl')",
            "import torch.distributed as dist\ndist.init_process_group(backend=_device.backend)",
        ),
        ("backend = 'nccl'", "backend = _device.backend"),
        (
            "torch.distributed.init_process_group('nccl' if a else 'gloo')",
            "torch.distributed.init_process_group(_device.backend if a else 'gloo')",
        ),
        (
            "p.add_argument('--dist-backend', default='nccl')",
            "p.add_argument('--dist-backend', default=_device.backend)",
        ),
        (
            "args.dist_backend = 'nccl' if ok else 'gloo'",
            "args.dist_backend = _device.backend if ok else 'gloo'",
        ),
    ],
    "nccl-comparison": [
        ("backend == 'nccl'", "backend == _device.accelerator_backend"),
        ("if b != 'nccl': pass", "if b != _device.accelerator_backend: pass"),
        ("b in ('nccl', 'mpi')", "b in (_device.accelerator_backend, 'mpi')"),
        ("b in ('nccl', 'hccl')", None),
    ],
    "nccl-choice": [
        ("kinds = ['nccl', 'gloo']", "kinds = [_device.accelerator_backend, 'gloo']"),
        ("f(('gloo', 'nccl'))", "f(('gloo', _device.accelerator_backend))"),
        ("g({'nccl', 'mpi'})", "g({_device.accelerator_backend, 'mpi'})"),
        ("kinds = ['nccl', 'hccl', 'gloo']", None),
    ],
    "nccl-mixed": [
        ("b = 'cuda:nccl,cpu:gloo'", "b = _device.type + \":\" + _device.backend + ',cpu:gloo'"),
        (
            "f(backend='cpu:gloo,cuda:nccl')",
            "f(backend='cpu:gloo,' + _device.type + \":\" + _device.backend)",
        ),
        ("g('cuda:nccl')", 'g(_device.type + ":" + _device.backend)'),
        ("x = ['cuda:nccl']", 'x = [(_device.type + ":" + _device.backend)]'),
    ],
    "nccl-string": [
        ("f('nccl')", None),
        ("x = 'nccl'", None),
        ("t['nccl']", None),
        ("g(k='nccl')", None),
    ],
    "nccl-available": [
        ("torch.distributed.is_nccl_available()", "_device.is_backend_available()"),
        (
            "import torch.distributed as d\nd.is_nccl_available()",
            "import torch.distributed as d\n_device.is_backend_available()",
        ),
        (
            "from torch import distributed\ndistributed.is_nccl_available()",
            "from torch import distributed\n_device.is_backend_available()",
        ),
        ("f = torch.distributed.is_nccl_available", "f = _device.is_backend_available"),
    ],
    "nccl-group": [
        ("torch.distributed.ProcessGroupNCCL.Options()", None),
        ("import torch.distributed as dist\ndist.ProcessGroupNCCL", None),
        ("from torch.distributed import ProcessGroupNCCL\nProcessGroupNCCL.Options()", None),
        ("x = torch.distributed.ProcessGroupNCCL(s, 0, 1)", None),
    ],
    "data-parallel": [
        ("torch.nn.DataParallel(m)", None),
        ("import torch.nn as nn\nm = nn.DataParallel(m)", None),
        ("from torch.nn import DataParallel\nDataParallel(m)", None),
        ("torch.nn.parallel.DataParallel(m, device_ids=[0])", None),
    ],
    "visible-devices": [
        (
            "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'",
            "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\n"
            'os.environ["ASCEND_RT_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]',
        ),
        (
            "from os import environ\nenviron['CUDA_LAUNCH_BLOCKING'] = '1'",
            "from os import environ\nenviron['CUDA_LAUNCH_BLOCKING'] = '1'\n"
            'environ["ASCEND_LAUNCH_BLOCKING"] = environ["CUDA_LAUNCH_BLOCKING"]',
        ),
        (
            "import os\nif a:\n    os.environ['CUDA_VISIBLE_DEVICES'] = g\n",
            "import os\nif a:\n    os.environ['CUDA_VISIBLE_DEVICES'] = g\n"
            '    os.environ["ASCEND_RT_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]\n',
        ),
        ("import os; os.environ['CUDA_VISIBLE_DEVICES'] = '0'", None),
    ],
    "environment-name": [
        ("import os\nos.environ.get('CUDA_VISIBLE_DEVICES')", None),
        ("import os\nos.getenv('NCCL_DEBUG')", None),
        ("x = 'CUBLAS_WORKSPACE_CONFIG'", None),
        ("env = {'PYTORCH_CUDA_ALLOC_CONF': 'a'}", None),
    ],
    "nvidia-program": [
        ("run('nvidia-smi -q')", None),
        ("f(['nvidia-smi', '-L'])", None),
        ("import os\nos.system('nvcc a.cu')", None),
        ("x = 'nsys profile'", None),
    ],
    "profiler-activity": [
        ("torch.profiler.ProfilerActivity.CUDA", "_device.profiler_activity()"),
        (
            "from torch.profiler import ProfilerActivity\n[ProfilerActivity.CUDA]",
            "from torch.profiler import ProfilerActivity\n[_device.profiler_activity()]",
        ),
        (
            "import torch.profiler as p\np.ProfilerActivity.CUDA",
            "import torch.profiler as p\n_device.profiler_activity()",
        ),
        (
            "f(activities=[torch.profiler.ProfilerActivity.CUDA])",
            "f(activities=[_device.profiler_activity()])",
        ),
    ],
    "profiler-flag": [
        ("torch.autograd.profiler.profile(use_cuda=True)", None),
        ("from torch.autograd import profiler\nprofiler.profile(use_cuda=c)", None),
        ("import torch.autograd.profiler as p\np.profile(use_device='cuda')", None),
        ("with torch.autograd.profiler.profile(use_cuda=True): pass", None),
    ],
    "model-device-map": [
        ("f(device_map={'': 0})", "f(device_map={'': _device.name(0)})"),
        ("f(device_map={'': 'cuda:1'})", "f(device_map={'': _device.name(1)})"),
        (
            "f(device_map={'a': 'cuda', 'b': 'cpu'})",
            "f(device_map={'a': _device.type, 'b': 'cpu'})",
        ),
        (
            "f(device_map={'a': 0, 'b': 'disk'})",
            "f(device_map={'a': _device.name(0), 'b': 'disk'})",
        ),
    ],
    "operator-device": [
        (
            "@torch.library.custom_op('a::b', mutates_args=(), device_types='cuda')\ndef f(): pass",
            None,
        ),
        ("torch.library.register_kernel('a::b', 'cuda', f)", None),
        ("@f.register_kernel('cuda')\ndef g(): pass", None),
        ("lib.impl('b', f, 'CUDA')", None),
    ],
    "autocast-state": [
        ("torch.is_autocast_enabled()", "_device.is_autocast_enabled()"),
        ("torch.get_autocast_gpu_dtype()", "_device.get_autocast_dtype()"),
        ("torch.set_autocast_gpu_dtype(d)", "_device.set_autocast_dtype(d)"),
        (
            "import torch as t\nt.set_autocast_enabled(x)",
            "import torch as t\n_device.set_autocast_enabled(x)",
        ),
    ],
    "cuda-optimizer": [
        ("A(optim='paged_adamw_8bit')", None),
        ("A(optim='adamw_bnb_8bit')", None),
        ("f(a, optim='paged_adamw_32bit')", None),
        ("A(optim='adamw_apex_fused')", None),
    ],
    "tf32-option": [
        ("TrainingArguments(tf32=True)", None),
        ("A('o', tf32=True)", None),
        ("dict(tf32=True)", None),
    ],
    "double-method": [("x.double()", None), ("m.net.double()", None), ("f(x).double()", None)],
    "fork-with-device": [
        ("import os\ntorch.cuda.set_device(0)\nos.fork()", None),
        ("import multiprocessing as m\nx.cuda()\nif a:\n    m.Process(target=f).start()", None),
        ("import torch.multiprocessing as m\nm.set_start_method('fork')", None),
        ("from multiprocessing import get_context\nget_context('fork')", None),
    ],
    "pin-device": [
        ("DataLoader(d, pin_memory_device='cuda')", "DataLoader(d, pin_memory_device='')"),
        ("f(pin_memory_device='cuda:0')", "f(pin_memory_device='')"),
        ("dict(pin_memory_device='cuda')", "dict(pin_memory_device='')"),
        (
            "torch.utils.data.DataLoader(d, 4, pin_memory_device='cuda')",
            "torch.utils.data.DataLoader(d, 4, pin_memory_device='')",
        ),
    ],
    "torch-compile": [
        ("torch.compile(m)", None),
        ("m = torch.compile(m, mode='x')", None),
        ("import torch as t\nt.compile(m)", None),
        ("@torch.compile\ndef f(): pass", None),
    ],
    "torch-script": [
        ("torch.jit.script(m)", None),
        ("@torch.jit.script\ndef f(): pass", None),
        ("from torch import jit\njit.trace(m, x)", None),
        ("import torch as t\nt.jit.script(m)", None),
    ],
    "compiler-settings": [
        ("torch._inductor.config.x = 1", None),
        ("torch._dynamo.config.suppress_errors = True", None),
        ("import torch._dynamo\ntorch._dynamo.config.cache_size_limit = 9", None),
        ("from torch import _inductor\n_inductor.config.coordinate_descent_tuning = True", None),
    ],
    "data-pointer": [
        ("f(x.data_ptr())", None),
        ("p = x.data_ptr()", None),
        ("x.data_ptr() == y.data_ptr()", None),
        ("{p.data_ptr() for p in ps}", None),
    ],
    "sparse-tensors": [
        ("torch.sparse.mm(a, b)", None),
        ("torch.sparse_coo_tensor(i, v)", None),
        ("import torch as t\nt.sparse_csr_tensor(a, b, c)", None),
        ("from torch import sparse\nsparse.sum(x)", None),
    ],
    "attention-choice": [
        ("f(attn_implementation='flash_attention_2')", None),
        ("M.from_pretrained(p, use_flash_attention_2=True)", None),
        ("C(_attn_implementation='flash_attention_2')", None),
        ("C(use_flash_attn=True)", None),
    ],
    "quantised-loading": [
        ("f(load_in_8bit=True)", None),
        ("f(load_in_4bit=True)", None),
        ("f(load_in_8bit=x)", None),
        ("B(load_in_4bit=args.q)", None),
    ],
    "cuda-import": [
        ("import torch.cuda", "import torch"),
        ("import torch.cuda as c\nc.empty_cache()", "import torch\n_device.empty_cache()"),
        (
            "import os, torch.cuda.amp as amp\namp.GradScaler()",
            "import torch, os\n_device.GradScaler()",
        ),
        ("import torch.cuda.amp", "import torch"),
    ],
    "cuda-from-import": [
        (
            "from torch.cuda.amp import autocast, GradScaler",
            "from _device import autocast, GradScaler",
        ),
        ("from torch.cuda import is_available", "from torch.accelerator import is_available"),
        (
            "from torch import cuda, nn\ncuda.synchronize()",
            "from torch import nn\n_device.synchronize()",
        ),
        (
            "from torch.cuda import memory_allocated as m",
            "from _device import memory_allocated as m",
        ),
        ("from torch.cuda import *", None),
    ],
    "cuda-other": [
        ("torch.cuda.something_new()", None),
        ("f(torch.cuda)", None),
        ("import torch as t\nt.cuda.other", None),
        ("from torch import cuda\ncuda.unknown(1)", None),
    ],
    "mentions-cuda": [
        ("use_cuda = True", None),
        ("args.cuda", None),
        ("print('CUDA is slow')", None),
        ("def check_cuda(): pass", None),
    ],
    "triton-kernel": [
        ("import triton\n@triton.jit\ndef k(): pass", None),
        ("import triton as t\n@t.jit\ndef k(): pass", None),
        ("from triton import jit\n@jit\ndef k(): pass", None),
        ("import triton\n@triton.jit(debug=True)\ndef k(): pass", None),
    ],
    "compiled-module": [
        ("import my_cuda", None),
        ("from ext import nms_cuda", None),
        ("import _cuda_ops", None),
        ("import pkg.roi_cuda as r", None),
    ],
    "custom-operator": [
        ("torch.ops.mylib.fast(x)", None),
        ("import torch as t\nt.ops.mine.go()", None),
        ("from torch import ops\nops.mine.go()", None),
        ("f = torch.ops.vendor", None),
    ],
}
NOT_FOUND: dict[str, list[str]] = {
    "device-literal": ["'''cuda'''", "x.to('cpu')", "print('cuda')"],
    "device-variable": ["impl = 'cuda'", "device = 'cpu'"],
    "autocast-device": ["torch.autocast('cpu')", "mine.autocast('cuda')"],
    "device-with-index": ["torch.device('cpu', 0)", "mine.device('cuda', 1)"],
    "device-comparison": ["x.device.type == 'cpu'", "a == b"],
    "device-prefix": ["device.startswith('cpu')", "startswith('cuda')"],
    "device-format": ["f'{a}:{i}'", "'barracuda:%d' % i"],
    "device-choices": ["x = ['cpu', 'mps']"],
    "device-map": ["{'cuda': fast, 'cpu': slow}", "{'cpu': 'cpu'}", "{'cuda:0': 'fast'}", "{**m}"],
    "device-key": ["t['cpu']", "{'cpu': 1}"],
    "cuda-string": ["'a cuda b'", "x = 'cudart'"],
    "cuda-method": ["torch.cuda.synchronize()", "x.cpu()", "cuda()"],
    "cuda-method-uncalled": ["args.cuda", "x.cpu", "m.cuda.y"],
    "cuda-method-defined": ["def cuda(): pass", "class A:\n    def cpu(self): pass"],
    "is-cuda": ["x.is_cpu", "is_cuda", "x.is_cuda()"],
    "device-index": ["x.to(d)", "x.to('cpu')", "f(0)"],
    "tensor-type-method": ["x.type(torch.FloatTensor)", "x.type()"],
    "default-tensor-type": ["torch.set_default_tensor_type(torch.FloatTensor)"],
    "tensor-type-string": ["'torch.FloatTensor'", "'see torch.cuda.FloatTensor for more'"],
    "tensor-type-check": ["isinstance(x, torch.FloatTensor)"],
    "cuda-by-name": ["getattr(torch, 'cpu')", "getattr(x, 'cuda')"],
    "nccl-backend": ["torch.distributed.init_process_group('gloo')", "x = 'nccl'"],
    "nccl-comparison": ["b == 'gloo'"],
    "nccl-choice": ["x = ['gloo', 'mpi']"],
    "nccl-mixed": ["'cpu:gloo'"],
    "nccl-string": ["'nccl is fast'"],
    "nccl-available": ["torch.distributed.is_gloo_available()", "mine.is_nccl_available()"],
    "nccl-group": ["torch.distributed.ProcessGroup"],
    "data-parallel": ["torch.nn.parallel.DistributedDataParallel(m)", "mine.DataParallel(m)"],
    "visible-devices": ["import os\nos.environ['PATH'] = ''", "x['CUDA_VISIBLE_DEVICES'] = 1"],
    "environment-name": ["import os\nos.getenv('HOME')"],
    "nvidia-program": ["run('npu-smi info')"],
    "profiler-activity": ["torch.profiler.ProfilerActivity.CPU"],
    "profiler-flag": ["f(use_cuda=True)"],
    "pin-device": ["f(pin_memory=True)"],
    "model-device-map": ["f(device_map='auto')", "f(device_map={'': 'cpu'})", "f(m={'': 0})"],
    "operator-device": ["f('cuda')", "torch.library.register_kernel('a::b', 'cpu', f)"],
    "autocast-state": ["torch.is_autocast_enabled('cuda')", "mine.is_autocast_enabled()"],
    "cuda-optimizer": ["A(optim='adamw_torch')", "f(name='paged_adamw_8bit')"],
    "tf32-option": ["A(tf32=False)", "A(bf16=True)"],
    "double-method": ["x.float()", "x.double(2)"],
    "fork-with-device": ["import os\nos.fork()", "import os\nos.fork()\nx.cuda()"],
    "torch-compile": ["re.compile('a')", "compile('a')"],
    "torch-script": ["jit.script(m)"],
    "compiler-settings": ["torch.config.x"],
    "data-pointer": ["x.data"],
    "sparse-tensors": ["torch.dense", "sparse.mm(a)"],
    "attention-choice": ["f(attn_implementation='sdpa')"],
    "quantised-loading": ["f(load_in_8bit=False)"],
    "cuda-import": ["import torch.nn", "import cuda"],
    "cuda-from-import": ["from torch import nn", "from .cuda import x", "from mine.cuda import y"],
    "cuda-other": ["mine.cuda.x", "cuda.y"],
    "mentions-cuda": ["use_gpu = True"],
    "triton-kernel": ["@jit\ndef k(): pass"],
    "compiled-module": ["import cuda", "from . import ops"],
    "custom-operator": ["torch.ops.aten.mm(a, b)", "ops.mine.go()"],
}
PARTS = {
    "torch.backends.cudnn": "torch.backends.cudnn.benchmark",
    "torch.backends.cuda.sdp_kernel": "torch.backends.cuda.sdp_kernel",
    "torch.backends.cuda.enable_": "torch.backends.cuda.enable_flash_sdp",
    "torch.backends.cuda.can_use_": "torch.backends.cuda.can_use_flash_attention",
    "torch.backends.cuda": "torch.backends.cuda.cufft_plan_cache",
    "torch._C._cuda": "torch._C._cuda_getDeviceCount",
    "torch._C._CUDA": "torch._C._CUDAGraph",
    "torch._C._nccl": "torch._C._nccl_version",
    "torch.float8_": "torch.float8_e4m3fn",
}
"""A full name for each beginning that a rule goes by."""
FOUND["cuda-path"] = [
    ("patch('torch.cuda.is_available')", None),
    ("mock.patch('torch.cuda.device_count', return_value=2)", None),
    ("x = 'torch.cuda.amp.autocast'", None),
]
NOT_FOUND["cuda-path"] = ["'torch.cuda is fast'", "'torch.cpu.x'"]
