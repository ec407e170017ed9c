"""The expressions of tensor.py, one a line; test/tensor holds each in TypeScript under the same name."""

READS = """
x[0]
x[-1]
x[1, 2]
x[1, 2, 3]
x[-2, -3, -4]
x[:]
x[1:]
x[:1]
x[-1:]
x[0:2, 1:3]
x[:, 1]
x[:, -1, :]
x[:, :, 2]
x[:, ::2]
x[:, 1::2, ::3]
x[:, :, 1:-1]
x[:, :, -3:]
x[:, :, 10:]
x[:, :, 3:1]
x[:, -100:100]
x[5:9]
x[...]
x[..., 0]
x[0, ...]
x[1, ..., 2]
x[..., 1:3]
x[..., None]
x[None]
x[:, None]
x[None, 0, :, None, 1]
x[..., None, :, 2]
x[0, 1, 2, ...]
x[True]
x[False]
x[0, True]
x[None, ..., None]
x[flags]
x[mask]
x[0, square]
x[:, threes]
x[:, :, fours]
x[flags, 1]
x[flags, :, 1:3]
x[1, threes, ::2]
x[threes.nonzero()[0, 0]]
x[rows]
x[rows, columns]
x[:, columns]
x[:, :, last]
x[rows, :, last3]
x[:, columns, last3]
x[0, columns, last3]
x[rows, columns, last3]
x[grid]
x[:, grid]
x[grid, 1]
x[grid, :, grid]
x[:, grid, :, None]
x[column, columns]
x[column, :, last]
x[..., last]
x[..., last, None]
x[None, rows]
x[:, None, columns]
x[rows, None, columns]
x[[0, 1, 0]]
x[:, [2, 0], 1:3]
x[:, [-1, -2]]
x[zero]
x[zero, one]
x[zero, 1:]
x[empty]
x[:, empty]
x[flags & ~flags]
x[x > 0]
bytes_[1:3]
x[:, :, last.to(torch.int32)]
x[0][1:][None, 0]
scalar[...]
scalar[None]
scalar[True]
scalar[False]
scalar[None, None, ...]
"""

WRITES = """
x[0] = 5
x[-1] = -2.5
x[1, 2, 3] = 9
x[:] = 1
x[...] = 0.25
x[:, 1] = 7
x[:, ::2, 1] = -1
x[..., 2] = 4
x[0, 1:3] = row
x[:, :, 1] = row[:3]
x[1] = x[0]
x[:, 0] = x[:, 1] * 2
x[1:2] = x[0:1]
x[mask] = 0
x[x > 0] = -1
x[flags] = row
x[flags, 1] = 3
x[0, square] = 8
x[rows] = 6
x[rows, columns] = row
x[:, columns] = row
x[rows, columns, last3] = 10
x[:, [0, 2]] = 11
x[grid, 1] = row
x[0, 0, last] = row
x[None] = 2
x[..., None] = 3
x[True] = 12
x[False] = 12
x[:, 3:1] = 99
x[empty] = 99
x[0] = True
x[0, 0] = nan
x[zero] = one
x[0, 0, 0] = one
x[:, :, :] = x.flip(0)
x[mask] = values
"""

UNARY = """abs neg exp expm1 sin cos tan tanh sigmoid erf floor ceil round trunc frac sign reciprocal square relu atan
sinh cosh asinh isnan isfinite logical_not signbit positive sgn erfc exp2 sinc""".split()

POSITIVE = 'log log1p log2 log10 sqrt rsqrt lgamma digamma acosh'.split()

OPERATORS = """
x.clamp(-0.5, 0.5)
x.clamp(min=0)
x.clamp(max=0.25)
x.clamp(y, y + 1)
x + 1
1 - x
x.add(y)
x.add(y, alpha=2)
x.add(2, alpha=3)
x.sub(y, alpha=0.5)
x.mul(y)
x.mul(2.5)
x.div(y)
x.div(2)
x.div(y, rounding_mode='floor')
i.div(3, rounding_mode='trunc')
i.div(3)
i.floor_divide(3)
i.remainder(4)
i.fmod(-4)
x.remainder(0.7)
p.pow(y)
p.pow(2)
torch.pow(2, x)
x.maximum(y)
x.minimum(y)
x.atan2(y)
x.hypot(y)
x.lerp(y, 0.25)
x.lerp(y, p)
x.addcmul(y, p, value=0.5)
x.addcdiv(y, p, value=-1)
x.copysign(y)
x.eq(y)
x.ne(0)
x.lt(y)
x.ge(0)
x.logical_and(y)
i.bitwise_and(3)
i.bitwise_xor(j)
i.bitwise_not()
i.bitwise_left_shift(2)
torch.where(mask, x, y)
torch.where(mask, x, 0)
torch.where(mask, 1.5, x)
x.masked_fill(mask, -inf)
x.nan_to_num(0)
v.add(x)
x.sum()
x.sum(1)
x.sum([0, 1], keepdim=True)
x.sum(-1, dtype=torch.float64)
i.sum()
x.mean()
x.mean(0)
x.mean([0], keepdim=True)
x.prod()
x.prod(1)
x.max()
x.max(1)
x.max(1, keepdim=True)
x.min(0)
x.amax([0, 1])
x.amin(1)
x.argmax()
x.argmax(1)
x.argmin(0, keepdim=True)
x.median()
x.median(1)
x.mode(1)
x.kthvalue(2, 1)
x.std()
x.std(1, correction=0)
x.var(0)
torch.var_mean(x, 1)
torch.std_mean(x, 0)
x.norm()
x.norm(1, 1)
torch.linalg.vector_norm(x, 3)
x.logsumexp(1)
x.cumsum(1)
x.cumprod(0)
x.cummax(1)
x.logcumsumexp(1)
x.all()
mask.any(1)
mask.all(0)
mask.sum()
i.count_nonzero()
torch.aminmax(x)
x.quantile(0.3)
x.histc(5, -2, 2)
i.flatten().bincount()
x.dist(y)
x.softmax(1)
x.log_softmax(-1)
x.softmax(0, dtype=torch.float64)
x.reshape(2, 6)
x.reshape([4, -1])
x.view(12)
x.view(-1, 2)
x.view(torch.int32)
x.flatten()
cube.flatten(1, 2)
x.t()
x.transpose(0, 1)
cube.permute(2, 0, 1)
cube.permute([1, 2, 0])
cube.movedim(0, 2)
x.unsqueeze(1)
x.unsqueeze(0).squeeze()
x.unsqueeze(0).squeeze(0)
x.expand(2, 3, 4)
x.expand([2, -1, -1])
x.repeat(2, 1)
v.repeat_interleave(2)
x.repeat_interleave(t3, 0)
x.tile([2, 2])
x.flip(0)
x.flip([0, 1])
x.roll(1)
x.roll([1, -1], [0, 1])
x.rot90()
torch.cat([x, y])
torch.cat([x, y], 1)
torch.stack([x, y], 2)
x.split(2, 1)
x.split([1, 3], 1)
x.hsplit(2)
x.hsplit([2])
x.vsplit(3)
x.vsplit([2])
cube.dsplit(2)
cube.dsplit([2])
x.chunk(2, 1)
x.unbind(0)
torch.meshgrid([v, bias5], indexing='ij')
torch.broadcast_tensors(v, x)
x.narrow(1, 1, 2)
x.select(0, 1)
x.unfold(1, 2, 1)
x.tril()
x.triu(1)
sq.diagonal()
v.diag_embed()
x.diff()
cube.as_strided([2, 2], [1, 2], 1)
x.sort(1)
x.sort(dim=0, descending=True)
x.argsort(1)
x.topk(2, 1)
x.topk(2, dim=1, largest=False, sorted=True)
torch._unique2(i, True, True, True)
torch.unique_consecutive(i.flatten())
torch.searchsorted(sorted_, x)
torch.bucketize(x, sorted_, right=True)
x.nonzero()
x.gather(1, index)
x.scatter(1, index, y)
x.scatter(1, index, 7)
x.scatter_add(1, index, y)
x.scatter_reduce(1, index, y, 'amax')
x.index_select(1, t3)
x.index_add(0, t3, y, alpha=2)
x.index_fill(1, t3, 5)
x.index_copy(0, t3, y)
x.take(t3)
x.take_along_dim(index, 1)
x.masked_select(mask)
x.masked_scatter(mask, y)
x.put(t3, t3.float(), True)
x @ m
x.mm(m)
x.matmul(v)
v.dot(v)
v.outer(v)
cube.bmm(cube.transpose(1, 2))
torch.addmm(bias5, x, m)
torch.addmm(bias5, x, m, beta=0.5, alpha=2)
torch.addmv(t3.float(), x, v)
torch.einsum('ij,jk->ik', [x, m])
torch.einsum('bij,bkj->bik', cube, cube)
torch.tensordot(x, m, dims=1)
torch.kron(x, v)
torch.cross(x[:, :3], y[:, :3], dim=1)
torch.cdist(x, y)
F.linear(x, m.t(), bias5)
torch.linalg.det(sq)
torch.linalg.inv(spd)
torch.linalg.solve(spd, v)
torch.linalg.cholesky(spd)
torch.linalg.slogdet(spd)
torch.linalg.svdvals(x)
torch.linalg.eigvalsh(spd)
torch.linalg.matrix_norm(x)
torch.linalg.pinv(x)
torch.linalg.matrix_rank(spd)
torch.linalg.matrix_power(sq, 3)
torch.linalg.lstsq(spd, x.t()).solution
torch.linalg.multi_dot([x, m, m.t()])
sq.trace()
F.conv1d(sequence, k1)
F.conv1d(sequence, k1, stride=2, padding=1)
F.conv1d(sequence, k1, bias5, 1, 'same')
F.conv1d(sequence, k1, bias5, stride=2)
F.conv2d(image, k2)
F.conv2d(image, k2, None, [2, 1], [1, 0], [1, 2])
F.conv2d(image, k2[:3, :1], groups=3)
F.conv_transpose2d(image, k2.transpose(0, 1), stride=2)
F.avg_pool2d(image, 2)
F.max_pool2d(image, [2, 3], stride=1)
F.max_pool2d(image, 2, return_indices=True)
F.adaptive_avg_pool2d(image, [3, 2])
F.max_pool1d(sequence, 3, 2, 1)
F.interpolate(image, [5, 7], mode='nearest')
F.interpolate(image, [5, 7], mode='bilinear', align_corners=False)
F.pad(x, [1, 2])
F.pad(x, [1, 0, 2, 1], value=3.5)
F.pad(sequence, [2, 2], mode='reflect')
F.pixel_shuffle(image[:, :1].expand(2, 4, 6, 6), 2)
F.layer_norm(x, [4], v, v, 1e-3)
F.group_norm(image, 3)
F.batch_norm(image, t3.float(), t3.float() + 1, training=False)
F.embedding(index, sq)
F.one_hot(t3, 4)
F.cross_entropy(x, t3)
F.cross_entropy(x, t3, reduction='none', label_smoothing=0.1)
F.nll_loss(x.log_softmax(1), t3, reduction='sum')
F.mse_loss(x, y)
F.l1_loss(x, y, reduction='sum')
F.binary_cross_entropy_with_logits(x, p.clamp(0, 1))
F.kl_div(x, y, reduction='batchmean', log_target=True)
F.scaled_dot_product_attention(cube, cube, cube)
F.scaled_dot_product_attention(cube, cube, cube, is_causal=True)
F.scaled_dot_product_attention(cube, cube, cube, attn_mask=mask[0].expand(3, 4)[:, :3], scale=0.5)
F.gelu(x)
F.gelu(x, approximate='tanh')
F.silu(x)
F.elu(x, 0.7)
F.leaky_relu(x, 0.2)
F.softplus(x)
F.hardswish(x)
F.mish(x)
F.glu(x, 1)
F.prelu(x, v)
F.cosine_similarity(x, y)
torch.fft.fft(v)
torch.fft.rfft(x)
torch.stft(cube.flatten(), 8, return_complex=True)
torch.stft(cube.flatten(), 8, 2, 6, torch.ones(6), return_complex=True)
torch.stft(cube.flatten(), 8, 2, None, None, False, return_complex=True)
torch.stft(cube.flatten(), 8, pad_mode='constant', normalized=True, return_complex=True)
torch.fft.irfft(torch.fft.rfft(x), n=4)
torch.stft(sequence[0], 4, 2, window=v, return_complex=True)
torch.view_as_complex(x.view(3, 2, 2)).abs()
torch.view_as_complex(x.view(3, 2, 2)).conj() * (1 + 2j)
torch.complex(x, y).angle()
torch.polar(p, x)
x.float().double()
x.to(torch.float64)
x.to(torch.float16)
x.to(torch.bfloat16)
x.to(torch.int32)
i.to(torch.bool)
x.type_as(i)
torch._foreach_add([x, y], 1)
torch._foreach_mul([x, y], [p, p])
torch._foreach_norm([x, y])
torch.allclose(x, x + 1e-9)
x.equal(y)
x.is_floating_point()
x.numel()
x.dim()
x.size(1)
torch.result_type(i, 1.5) == torch.float32
torch.arange(5)
torch.arange(1, 10, 3)
torch.arange(0, 1, 0.25)
torch.arange(5, dtype=torch.float16)
torch.linspace(0, 1, 5)
torch.logspace(0, 2, 3)
torch.eye(2, 3)
torch.full([2], 7)
torch.full([2], 7.5)
torch.full([2], True)
torch.full([2], 7, dtype=torch.float64)
torch.zeros([2, 0])
torch.ones_like(x, dtype=torch.int64)
torch.full_like(x, 2)
torch.tril_indices(3, 3)
torch.hann_window(6)
torch.vander(v)
torch.combinations(v[:3])
torch.cartesian_prod(v, bias5)
torch.block_diag(x, y)
torch.trapezoid(x, dim=1)
torch.heaviside(x, p)
torch.logaddexp(x, y)
torch.special.xlogy(x, p)
torch.special.i0(x)
torch.isclose(x, y, rtol=1)
torch.isin(i, t3)
torch.renorm(x, 2, 0, 1.0)
torch.corrcoef(x)
torch.nonzero(x > 0, as_tuple=True)
x.norm('fro')
x.norm('nuc')
torch.norm(cube, 'fro', [0, 2], keepdim=True)
torch.norm(cube, 'nuc', dim=[1, 2])
torch.norm(x, 'fro', 1)
torch.tensordot(cube, cube.permute(1, 2, 0), dims=2)
torch.tensordot(v, x, 0)
torch.tensordot(cube, x, dims=[[1, 2], [0, 1]])
torch.cdist(x, y, compute_mode='donot_use_mm_for_euclid_dist')
torch.unravel_index(t3, [2, 2])
torch.unravel_index(torch.tensor([[23, 0], [7, 11]]), (2, 3, 4))
torch.cov(x)
torch.gcd(i, j)
x.add_(1)
x.mul_(y).add_(1)
x.clamp_(min=0)
x.zero_()
x.fill_(3)
x.copy_(v)
x.masked_fill_(mask, 0)
x.index_fill_(0, t3, -1)
x.scatter_(1, index, 0)
x.t_()
x.unsqueeze_(0)
x.relu_()
"""

AUTOCAST = """
x @ m
torch.mm(x, m)
torch.addmm(bias5, x, m)
cube.bmm(cube.transpose(1, 2))
F.linear(x, m.t(), bias5)
F.conv1d(sequence, k1)
F.conv2d(image, k2)
torch.einsum('ij,jk->ik', x, m)
F.scaled_dot_product_attention(cube, cube, cube)
x + y
(x @ m) + bias5
(x @ m) * (x @ m)
x.exp()
(x @ m).exp()
(x @ m).softmax(-1)
(x @ m).log_softmax(-1)
(x @ m).sum()
(x @ m).cumsum(0)
(x @ m).norm()
(x @ m).relu()
F.gelu(x @ m)
F.layer_norm(x @ m, [5])
F.layer_norm(x, [4])
F.mse_loss(x @ m, x @ m)
F.cross_entropy(x @ m, t3)
F.binary_cross_entropy_with_logits(x @ m, x @ m)
torch.cat([x @ m, bias5[None]])
torch.stack([x, y])
(x @ m).pow(2)
(x @ m).mean()
F.avg_pool2d(image, 2)
F.avg_pool3d(image[None], 2)
F.embedding(index, sq)
torch.linalg.inv(spd)
torch.fft.fft(v)
x.double() @ m.double()
i @ j.t()
"""

GRADIENTS = """
x.sum()
(x * y).sum()
(x.exp() * y.sigmoid()).mean()
(x @ m).relu().sum()
x.softmax(1).pow(2).sum()
F.cross_entropy(x @ m, t3)
x.max(1).values.sum()
x[:, 1:3].pow(3).sum()
x[t3, t3].sum()
torch.cat([x, y * 2]).tanh().sum()
torch.where(mask, x, y).pow(2).sum()
(x.div(p) + p.log()).sum()
x.t().reshape(2, 6).cumsum(1).sin().sum()
F.conv2d(image, k2, padding=1).pow(2).mean()
F.max_pool2d(image, 2).sum() + F.avg_pool2d(image, 3).prod()
F.layer_norm(x, [4], v, v).pow(3).sum()
torch.linalg.inv(spd).sum() + torch.linalg.slogdet(spd)[1]
x.expand(2, 3, 4).mul(cube).sum().square()
F.embedding(index, sq).pow(2).sum()
x.norm() + y.std() + p.var(0).sum()
x.sort(1).values.mul(v).sum() + x.topk(2, 1).values.sum()
F.scaled_dot_product_attention(cube, cube, cube).sin().sum()
torch.view_as_complex(x.view(3, 2, 2)).abs().sum()
torch.fft.rfft(x).abs().pow(2).sum()
x.clone().mul_(y).add_(x).sum()
torch.einsum('ij,jk,ik->', x, m, x @ m)
x.double().pow(2).sum()
"""
