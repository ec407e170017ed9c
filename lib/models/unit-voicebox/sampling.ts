import {
  argumentError,
  listOf,
  requireFunction,
  requireNumber,
  requireOneOf,
  requireOptions,
  requireSignal,
  requireWhole,
} from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { withEvalMode } from '../../nn/eval-mode.js'
import { arange, Generator, linspace, noGrad, ops, randn, scope, Tensor, tensor } from '../../tensor/index.js'
import type { UnitVoicebox } from './unit-voicebox.js'

export interface UnitVoiceboxGenerateInputs {
  /** Unit of each frame of the mel spectrogram, int64 [batch, frames]: those of the prompt, then those to generate. */
  units: Tensor
  /** Number of frames of each row, without padding. Default: all. */
  lengths?: readonly number[]
  /**
   * A voice to continue: its normalized mel spectrogram for the first frames of each row, [batch, nFeats, frames], or as many frames as the
   * longest prompt.
   */
  prompt?: Tensor
  /** Number of frames of `prompt` in each row. Default: all of its frames. */
  promptLengths?: readonly number[]
  /** Evaluations of the network; with guidance, each has twice the batch. Heun's method takes half as many steps. Default 50. */
  steps?: number
  /** Default `'heun'`, the published one; its last step is an Euler step. */
  solver?: 'euler' | 'heun'
  /** Scale of classifier-free guidance, away from the velocity without units and prompt. Default 1; 0: none. */
  guidance?: number
  /**
   * Noise in the frames of the prompt: drawn again at every evaluation (`'redrawn'`, as published), or the initial noise, which follows one
   * path (`'fixed'`). Default `'redrawn'`.
   */
  promptNoise?: 'redrawn' | 'fixed'
  /** Initial noise, [batch, nFeats, frames]. Default: drawn. */
  noise?: Tensor
  /** Random seed, with the same draws on every device. Default: draws from the default generator. */
  seed?: number | bigint
  /** Called after every step with the finished fraction, from 0 to 1. */
  onProgress?: (done: number) => void
  /** Stops before the next evaluation of the network; the call throws the signal's reason. */
  signal?: AbortSignal
}

const INPUTS: readonly (keyof UnitVoiceboxGenerateInputs)[] = [
  'units',
  'lengths',
  'prompt',
  'promptLengths',
  'steps',
  'solver',
  'guidance',
  'promptNoise',
  'noise',
  'seed',
  'onProgress',
  'signal',
]
const WHERE = 'UnitVoicebox.generate'

/** The functions of a flow; times are sums in float32, as published. */
interface Flow {
  velocity(z: Tensor, t: number): Promise<Tensor>
  /** Replace the prompt's frames by their values at time `t`. */
  held(z: Tensor, t: number): Tensor
  progress(done: number): void
}

/** Generate a mel spectrogram from noise, [batch, nFeats, frames]. */
export async function generate(model: UnitVoicebox, inputs: UnitVoiceboxGenerateInputs): Promise<Tensor> {
  requireOptions(WHERE, inputs, INPUTS)
  const { units, steps = 50, solver = 'heun', guidance = 1, promptNoise = 'redrawn', onProgress, signal } = inputs
  if (!(units instanceof Tensor)) throw argumentError(WHERE, 'units', 'a tensor', units)
  if (units.ndim !== 2 || units.numel() === 0) {
    throw new ShapeError(`${WHERE}: units: expected [batch, frames] with at least one frame, got [${units.shape}]`)
  }
  requireWhole(WHERE, 'steps', steps, 1)
  requireNumber(WHERE, 'steps', steps, { least: 1, below: 100_001 })
  requireOneOf(WHERE, 'solver', solver, ['euler', 'heun'])
  requireNumber(WHERE, 'guidance', guidance, { least: 0, below: Number.POSITIVE_INFINITY })
  requireOneOf(WHERE, 'promptNoise', promptNoise, ['redrawn', 'fixed'])
  requireSignal(WHERE, signal)
  if (onProgress !== undefined) requireFunction(WHERE, 'onProgress', onProgress)
  for (const name of ['lengths', 'promptLengths'] as const) {
    if (inputs[name] !== undefined) listOf(WHERE, name, inputs[name], 'integers')
  }
  return scope(() =>
    withEvalMode(model, () =>
      noGrad(async () => {
        const some = model.parameters()[0] as Tensor
        const place = { device: some.device, dtype: some.dtype }
        const shape = [units.size(0), model.config.nFeats ?? 80, units.size(1)] as const
        // On the CPU and in float32 on every device, so that a seed gives the same noise.
        const generator = inputs.seed === undefined ? undefined : new Generator({ seed: inputs.seed, device: 'cpu' })
        const draw = () =>
          generator
            ? randn([...shape], { device: 'cpu', dtype: 'float32', generator }).to(place)
            : randn([...shape], place)
        try {
          const noise = inputs.noise ? checked('noise', inputs.noise, [...shape], place) : draw()
          const { condition, inside } = promptOf(inputs, [...shape], place)
          const rate = 1 - (model.config.sigmaMin ?? 1e-4)
          const flow: Flow = {
            velocity: (z, t) => {
              signal?.throwIfAborted()
              return velocity(model, inputs, z, condition, t, guidance)
            },
            held: (z, t) => {
              if (!inside) return z
              const under = promptNoise === 'fixed' ? noise : draw()
              return ops.where(inside, under.mul(1 - rate * t).add(condition.mul(t)), z)
            },
            progress: (done) => onProgress?.(done),
          }
          return await solve(flow, noise, solver, steps)
        } finally {
          generator?.dispose()
        }
      }),
    ),
  )
}

async function solve(flow: Flow, noise: Tensor, solver: 'euler' | 'heun', steps: number): Promise<Tensor> {
  const count = solver === 'heun' ? Math.floor((steps + 1) / 2) : steps
  const grid = scope(() => linspace(0, 1, count + 1, { device: 'cpu' }).toArray() as number[])
  let z = noise
  let t = grid[0] as number
  for (let step = 0; step < count; step += 1) {
    const dt = Math.fround((grid[step + 1] as number) - t)
    const ahead = Math.fround(t + dt)
    const next = await scope(async () => {
      const first = await flow.velocity(z, t)
      const there = flow.held(z.add(first.mul(dt)), ahead)
      if (solver === 'euler' || step === count - 1) return there
      const second = await flow.velocity(there, ahead)
      return flow.held(z.add(first.add(second).mul(dt / 2)), ahead)
    })
    if (z !== noise) z.dispose()
    z = next
    t = ahead
    flow.progress((step + 1) / count)
  }
  return z
}

async function velocity(
  model: UnitVoicebox,
  { units, lengths }: UnitVoiceboxGenerateInputs,
  noisy: Tensor,
  condition: Tensor,
  t: number,
  guidance: number,
): Promise<Tensor> {
  const batch = units.size(0)
  const at = (rows: number) => tensor(new Array<number>(rows).fill(t), { device: noisy.device, dtype: 'float64' })
  if (guidance === 0) {
    const alone = await model.forward({ units, noisy, condition, time: at(batch), ...(lengths && { lengths }) })
    return alone.velocity
  }
  // Without and with units and prompt, in one pass.
  const both = await model.forward({
    units: ops.cat([ops.fullLike(units, model.config.nTokens ?? 10000), units]),
    noisy: ops.cat([noisy, noisy]),
    condition: ops.cat([ops.zerosLike(condition), condition]),
    time: at(2 * batch),
    ...(lengths && { lengths: [...lengths, ...lengths] }),
  })
  const without = both.velocity.narrow(0, 0, batch)
  const withUnits = both.velocity.narrow(0, batch, batch)
  return withUnits.add(withUnits.sub(without).mul(guidance))
}

type Place = Pick<Tensor, 'device' | 'dtype'>

function checked(name: string, value: unknown, shape: number[], place: Place): Tensor {
  if (!(value instanceof Tensor)) throw argumentError(WHERE, name, 'a tensor', value)
  if (value.shape.join() !== shape.join()) {
    throw new ShapeError(`${WHERE}: ${name}: expected [${shape}], got [${value.shape}]`)
  }
  return value.to(place)
}

/** Return the prompt, zeros elsewhere, and its mask, bool [batch, 1, frames]; undefined without a prompt. */
function promptOf(
  { prompt, promptLengths, lengths }: UnitVoiceboxGenerateInputs,
  [batch, bands, frames]: number[],
  place: Place,
): { condition: Tensor; inside: Tensor | undefined } {
  const shape = [batch as number, bands as number, frames as number]
  const empty = ops.zeros(shape, place)
  if (prompt === undefined) {
    if (promptLengths !== undefined) {
      throw new ConfigError(`${WHERE}: promptLengths: expected a prompt with it, got none`)
    }
    return { condition: empty, inside: undefined }
  }
  if (!(prompt instanceof Tensor)) throw argumentError(WHERE, 'prompt', 'a tensor', prompt)
  const width = prompt.ndim === 3 ? prompt.size(2) : 0
  if (prompt.ndim !== 3 || prompt.size(0) !== batch || prompt.size(1) !== bands || width > (frames as number)) {
    throw new ShapeError(
      `${WHERE}: prompt: expected [${batch}, ${bands}, frames] with at most ${frames} frames, those of units, got [${prompt.shape}]`,
    )
  }
  const ends = promptLengths ? [...promptLengths] : new Array<number>(batch as number).fill(width)
  const bad = ends.findIndex(
    (end, i) => !Number.isInteger(end) || end < 0 || end > width || end > (lengths?.[i] ?? width),
  )
  if (ends.length !== batch || bad >= 0) {
    throw new ShapeError(
      `${WHERE}: promptLengths: expected ${batch} integers from 0 to ${width}, the frames of prompt, each at most the row's length, got [${[...ends]}]`,
      { promptLengths: [...ends] },
    )
  }
  const places = arange(frames as number, { device: place.device })
  const inside = places.lt(tensor([...ends], { dtype: 'int64', device: place.device }).unsqueeze(1)).unsqueeze(1)
  const whole = ops.constantPadNd(prompt.to(place), [0, (frames as number) - width])
  return { condition: ops.where(inside, whole, empty), inside }
}
