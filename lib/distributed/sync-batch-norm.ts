import { op } from '../native/call.js'
import { BatchNorm } from '../nn/batch-norm.js'
import type { BatchNormOptions, Module } from '../nn/index.js'
import { setMember } from '../nn/module.js'
import { AutogradFunction, cat, type FunctionContext, full, noGrad, ops, scope, type Tensor } from '../tensor/index.js'
import { getWorldSize, groupId, isInitialized } from './process-group.js'

// On this thread: a forward pass is synchronous, and in a backward pass the executor waits for it.
const gather = op('voxtorch::distributed_all_gather') as (group: number, tensor: Tensor) => Tensor[]
const reduce = op('voxtorch::distributed_all_reduce_') as (group: number, tensors: Tensor[], how: string) => void

/** Every dimension but that of the channels. */
const others = ({ shape }: Tensor): number[] => [...shape.keys()].filter((dim) => dim !== 1)

/** Return a tensor [channels] in the form in which it broadcasts over an input. */
const perChannel = (values: Tensor, { ndim }: Tensor): Tensor => values.reshape([1, -1, ...Array(ndim - 2).fill(1)])

/** Statistics of all ranks' inputs: sums of squares are of the distances to the mean. */
function statistics(input: Tensor): { mean: Tensor; squares: Tensor; count: Tensor } {
  const dims = others(input)
  const local = input.float()
  const size = input.numel() / Math.max(1, input.size(1))
  const mean = size === 0 ? local.sum(dims) : local.mean(dims)
  const squares = local.sub(perChannel(mean, local)).square().sum(dims)
  const own = cat([mean, squares, full([1], size, { dtype: 'float32', device: input.device })])
  const ranks = ops.stack(gather(groupId('SyncBatchNorm'), own))
  const channels = input.size(1)
  const [means, sums, counts] = [
    ranks.narrow(1, 0, channels),
    ranks.narrow(1, channels, channels),
    ranks.narrow(1, 2 * channels, 1),
  ]
  const count = counts.sum()
  const whole = means.mul(counts).sum([0]).div(count)
  // Chan, Golub and LeVeque 1979: the parts' sums, and those of the distances of their means.
  return { mean: whole, squares: sums.add(means.sub(whole).square().mul(counts)).sum([0]), count }
}

class Normalized extends AutogradFunction {
  static override forward(
    ctx: FunctionContext,
    input: Tensor,
    weight: Tensor | null,
    bias: Tensor | null,
    { mean, scale, count }: { mean: Tensor; scale: Tensor; count: Tensor },
  ): Tensor {
    ctx.saveForBackward(input, weight, mean, scale, count)
    ctx.group = groupId('SyncBatchNorm')
    const normal = input.float().sub(perChannel(mean, input)).mul(perChannel(scale, input))
    const scaled = weight ? normal.mul(perChannel(weight, input)) : normal
    return (bias ? scaled.add(perChannel(bias, input)) : scaled).to({ dtype: input.dtype })
  }

  static override backward(ctx: FunctionContext, gradient: Tensor): (Tensor | null)[] {
    const [input, weight, mean, scale, count] = ctx.savedTensors as [Tensor, Tensor | null, Tensor, Tensor, Tensor]
    const dims = others(input)
    const normal = input.float().sub(perChannel(mean, input)).mul(perChannel(scale, input))
    const out = gradient.float()
    const [sum, product] = [out.sum(dims), out.mul(normal).sum(dims)]
    const all = cat([sum, product])
    reduce(ctx.group as number, [all], 'sum')
    const [first, second] = all.div(count).chunk(2) as [Tensor, Tensor]
    const through = out.sub(perChannel(first, input)).sub(normal.mul(perChannel(second, input)))
    const factor = weight ? scale.mul(weight) : scale
    const needs = ctx.needsInputGrad
    return [
      through.mul(perChannel(factor, input)).to({ dtype: input.dtype }),
      weight && needs[1] ? product.to({ dtype: weight.dtype }) : null,
      needs[2] ? sum.to({ dtype: (weight ?? input).dtype }) : null,
      null,
    ]
  }
}

/**
 * Batch normalization over the batches of all ranks, like `torch.nn.SyncBatchNorm`: in training, mean and variance are those of
 * all ranks' inputs, which may differ in size, and gradients flow between the ranks. Without a process group, and in `eval()`, it
 * is a batch normalization. `forward` waits for the other ranks on the calling thread: await backward passes and collectives first.
 */
export class SyncBatchNorm extends BatchNorm {
  /** Normalize [batch, channels, ...]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    const useBatch = this.training || !this.running_mean
    if (!useBatch || !isInitialized() || getWorldSize() === 1 || input.ndim < 2) {
      return this.normalize(input, [Math.max(2, input.ndim)], '[batch, channels, ...]')
    }
    return scope(() => {
      const momentum = this.training ? this.countBatch() : 0
      const all = noGrad(() => {
        const { mean, squares, count } = statistics(input)
        const { running_mean, running_var } = this
        if (this.training && running_mean && running_var) {
          running_mean.lerp_(mean.to({ dtype: running_mean.dtype }), momentum)
          running_var.lerp_(squares.div(count.sub(1)).to({ dtype: running_var.dtype }), momentum)
        }
        return { mean, scale: squares.div(count).add(this.eps).rsqrt(), count }
      })
      return Normalized.apply(input, this.weight, this.bias, all)
    })
  }

  /**
   * Replace the batch normalizations of a module by synchronized ones on the same parameters and buffers, and return the module, or
   * the replacement if it is one itself. Like `torch.nn.SyncBatchNorm.convert_sync_batchnorm`.
   */
  static convertSyncBatchnorm<M extends Module>(module: M): M | SyncBatchNorm {
    if (module instanceof SyncBatchNorm) return module
    if (module instanceof BatchNorm) return converted(module)
    for (const [name, child] of module.namedChildren()) {
      const replacement = SyncBatchNorm.convertSyncBatchnorm(child)
      if (replacement !== child) setMember(module, name, replacement)
    }
    return module
  }
}

function converted(norm: BatchNorm): SyncBatchNorm {
  const { numFeatures, eps, momentum, weight, bias, running_mean, running_var, num_batches_tracked } = norm
  const options: BatchNormOptions = { eps, momentum, affine: false, trackRunningStats: false }
  const layer = new SyncBatchNorm(numFeatures, options)
  layer.weight = weight
  layer.bias = bias
  for (const [name, buffer] of Object.entries({ running_mean, running_var, num_batches_tracked })) {
    layer.registerBuffer(name, buffer)
  }
  return layer.train(norm.training)
}
