import { CheckpointError } from '../../base/errors.js'
import { Random } from '../../data/random.js'
import { cuda, Generator, getNumThreads, getRngState, setRngState, Tensor, tensor } from '../../tensor/index.js'

/** Generators of the user's own that a run draws from, by a name of choice. */
export type SeededGenerators = Readonly<Record<string, Random | Generator>>

/** The state of every random number generator that libtorch, and the caller, has. */
export function rngState(own: SeededGenerators): Record<string, unknown> {
  const devices = Array.from({ length: cuda.deviceCount() }, (_, i) => `cuda:${i}` as const)
  return {
    cpu: getRngState(),
    cuda: devices.map((device) => getRngState(device)),
    own: Object.fromEntries(Object.entries(own).map(([name, generator]) => [name, generator.getState()])),
    threads: getNumThreads(),
  }
}

/** Puts back what `rngState` gave. Warns where numbers may come out otherwise than they would have. */
export function restoreRng(saved: unknown, own: SeededGenerators, file: string): void {
  const { cpu, cuda: devices, own: others, threads } = saved as Record<string, unknown>
  const states = others as Record<string, unknown> | null | undefined
  if (!(cpu instanceof Tensor) || !Array.isArray(devices) || typeof states !== 'object' || states === null) {
    throw new CheckpointError(`${file} lacks the states of random number generators`, { file, field: 'rng' })
  }
  const put = (name: string, work: () => unknown) => {
    try {
      work()
    } catch (cause) {
      const message = `${file}: the state of ${name} cannot be restored: ${(cause as Error)?.message}`
      throw new CheckpointError(message, { file, field: name, cause })
    }
  }
  put('cpu', () => setRngState(cpu))
  const count = cuda.deviceCount()
  devices.slice(0, count).forEach((state, i) => {
    put(`cuda[${i}]`, () => setRngState(state as Tensor, `cuda:${i}`))
  })
  if (devices.length !== count) {
    warn(
      `${file} was written with ${devices.length} CUDA devices, there are ${count}: random numbers there will differ`,
    )
  }
  for (const [name, generator] of Object.entries(own)) {
    const state = Object.hasOwn(states, name) ? states[name] : undefined
    if (generator instanceof Random && Array.isArray(state)) put(`own.${name}`, () => generator.setState(state))
    else if (generator instanceof Generator && state instanceof Tensor)
      put(`own.${name}`, () => generator.setState(state))
    else throw new CheckpointError(`${file} lacks the state of the generator ${name}`, { file, generator: name })
  }
  if (threads !== getNumThreads()) {
    warn(
      `${file} was written with ${threads} threads, there are ${getNumThreads()} now, so sums may be rounded otherwise: ` +
        `call setNumThreads(${threads}) for the same numbers`,
    )
  }
}

/** States of generators as plain values, to be sent to another process: tensors of bytes become text. */
export function encodeRng(state: unknown): unknown {
  if (state instanceof Tensor) return { $bytes: Buffer.from(state.dataSync() as Uint8Array).toString('base64') }
  if (Array.isArray(state)) return state.map(encodeRng)
  if (typeof state !== 'object' || state === null) return state
  return Object.fromEntries(Object.entries(state).map(([key, value]) => [key, encodeRng(value)]))
}

/** What `encodeRng` was given. */
export function decodeRng(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(decodeRng)
  if (typeof value !== 'object' || value === null || value instanceof Tensor) return value
  const { $bytes } = value as Record<string, unknown>
  if (typeof $bytes === 'string') {
    // The state of a generator is on the CPU, a GPU's too.
    return tensor(new Uint8Array(Buffer.from($bytes, 'base64')), { dtype: 'uint8', device: 'cpu' })
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decodeRng(item)]))
}

export const warn = (message: string): void => process.emitWarning(message, 'TrainerWarning')
