import { ConfigError } from '../base/errors.js'
import { op, opAsync } from '../native/call.js'
import { Tensor, tensor, zeros } from '../tensor/index.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type ParamState, type StateSlot } from './optimizer-state.js'

export interface AdamW8bitOptions extends GroupOptions {
  /** Decay of the running averages of the gradient and of its square. Default [0.9, 0.999]. */
  betas: [number, number]
  /** Added to the denominator. Default 1e-8. */
  eps: number
  /** Decoupled weight decay. Default 0.01. */
  weightDecay: number
  /** Parameters with fewer elements keep their state in float32. Default 4096. */
  min8bitSize: number
}

const BLOCK = 256
const step = opAsync('voxtorch::adamw_8bit_step_')
const addTo = opAsync('aten::_foreach_add_')
const codeBook = op('voxtorch::dynamic_code_book')

const DEFAULTS: AdamW8bitOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0.01,
  min8bitSize: 4096,
  maximize: false,
}

/**
 * AdamW with 2 instead of 8 bytes of state per parameter (Dettmers et al. 2022, https://arxiv.org/abs/2110.02861). Both moments
 * are in the dynamic 8-bit type, signed and unsigned, in blocks of 256 elements with one float32 scale each. Code books, state
 * names and defaults are those of bitsandbytes' `AdamW8bit`, whose saved state loads. A number is rounded to the nearest code,
 * as in bitsandbytes' CUDA kernels (its CPU library may choose an adjacent code). There is no AMSGrad.
 *
 * Parameters are float32, bfloat16 or float16; with `masterWeights` the latter two are updated in float32.
 */
export class AdamW8bit extends Optimizer<AdamW8bitOptions> {
  constructor(params: ParamsOrGroups<AdamW8bitOptions>, options: Partial<AdamW8bitOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  override addGroup(added: { params: Iterable<Tensor> } & Partial<AdamW8bitOptions>): void {
    super.addGroup(added)
    const wide = this.groups.at(-1)?.params.find(({ dtype }) => dtype === 'float64')
    if (!wide) return
    this.groups.pop()
    throw new ConfigError(
      `AdamW8bit: expected float32, bfloat16 or float16 parameters, got float64 of shape [${wide.shape}]`,
      {},
    )
  }

  protected override checkOptions(group: ParamGroup<AdamW8bitOptions>): void {
    super.checkOptions(group)
    this.range(group, 'min8bitSize', group.min8bitSize)
  }

  protected override queueUpdate(group: ParamGroup<AdamW8bitOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, weightDecay, eps, maximize, min8bitSize } = group
    const states = pairs.map(({ param }) => this.stateOf(param, () => makeState(param, min8bitSize)))
    const column = (key: string, otherwise = key) => states.map((state) => state[key] ?? state[otherwise])
    const steps = column('step')
    return [
      addTo(steps, 1),
      step(
        pairs.map(({ param }) => param),
        pairs.map(({ grad }) => grad),
        column('state1'),
        column('state2'),
        // Ignored for float32 moments, which have no scales.
        column('absmax1', 'step'),
        column('absmax2', 'step'),
        steps,
        { lr, beta1: betas[0], beta2: betas[1], eps, weightDecay, maximize },
      ),
    ]
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { optim_bits: 8 }
  }

  protected override stateSlots(
    _: ParamGroup<AdamW8bitOptions>,
    param: Tensor,
    { state1 }: Record<string, unknown>,
  ): Record<string, StateSlot> {
    const packed = state1 instanceof Tensor && state1.dtype === 'uint8'
    const moment: StateSlot = { shape: param.shape, dtype: packed ? 'uint8' : 'float32', exact: true }
    const scales: StateSlot = { shape: [Math.ceil(param.numel() / BLOCK)], dtype: 'float32', exact: true }
    // bitsandbytes saves the code books with each parameter.
    const book = (signed: boolean): StateSlot => ({
      shape: [256],
      optional: true,
      constant: { name: 'the code book of the dynamic 8-bit type', make: () => codeBook({ signed }) as Tensor },
    })
    return {
      step: NUMBER,
      state1: moment,
      state2: moment,
      ...(packed && { absmax1: scales, absmax2: scales, qmap1: book(true), qmap2: book(false) }),
    }
  }
}

function makeState(param: Tensor, min8bitSize: number): ParamState {
  const { device, shape } = param
  const numel = param.numel()
  const packed = numel >= min8bitSize
  const moment = () => zeros(shape, { dtype: packed ? 'uint8' : 'float32', device })
  const scales = () => zeros([Math.ceil(numel / BLOCK)], { dtype: 'float32', device })
  return {
    step: tensor(0, { dtype: 'float32', device }),
    state1: moment(),
    state2: moment(),
    ...(packed && { absmax1: scales(), absmax2: scales() }),
  }
}
