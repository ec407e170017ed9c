import { CheckpointError } from '../../base/errors.js'
import { Random } from '../../data/random.js'
import { cuda, Generator, getNumThreads, getRngState, setRngState, Tensor, tensor } from '../../tensor/index.js'

/** Generators of the caller that a run draws from, by name. */
export type SeededGenerators = Readonly<Record<string, Random | Generator>>

/** Return the state of every random number generator of libtorch and of the caller. */
export function rngState(own: SeededGenerators): Record<string, unknown> {
  const devices = Array.from({ length: cuda.deviceCount() }, (_, i) => `cuda:${i}` as const)
  return {
    cpu: getRngState(),
    cuda: devices.map((device) => getRngState(device)),
    own: Object.fromEntries(Object.entries(own).map(([name, generator]) => [name, generator.getState()])),
    threads: getNumThreads(),
  }
}

/** Restore the states of `rngState`. Warns if random numbers may differ from those of an uninterrupted run. */
export function restoreRng(saved: unknown, own: SeededGenerators, file: string): void {
  const { cpu, cuda: devices, own: others, threads } = saved as Record<string, unknown>
  const states = others as Record<string, unknown> | null | undefined
  if (!(cpu instanceof Tensor) || !Array.isArray(devices) || typeof states !== 'object' || states === null) {
    throw new CheckpointError(`${file}: expected the states of random number generators in it, got none`, {
      file,
      field: 'rng',
    })
  }
  const put = (name: string, work: () => unknown) => {
    try {
      work()
    } catch (cause) {
      const message = `${file}: expected a state of ${name} that can be restored, got ${(cause as Error)?.message}`
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
      `${file}: expected ${devices.length} CUDA devices, as when it was written, got ${count}: random numbers there will differ`,
    )
  }
  for (const [name, generator] of Object.entries(own)) {
    const state = Object.hasOwn(states, name) ? states[name] : undefined
    if (generator instanceof Random && Array.isArray(state)) put(`own.${name}`, () => generator.setState(state))
    else if (generator instanceof Generator && state instanceof Tensor)
      put(`own.${name}`, () => generator.setState(state))
    else
      throw new CheckpointError(`${file}: expected the state of the generator ${name} in it, got none`, {
        file,
        generator: name,
      })
  }
  if (threads !== getNumThreads()) {
    warn(
      `${file}: expected ${threads} threads, as when it was written, got ${getNumThreads()}, so sums may be rounded differently: ` +
        `call setNumThreads(${threads}) for the same numbers`,
    )
  }
}

/** Convert the states of generators to plain values that can be sent to another process: byte tensors become base64. */
export function encodeRng(state: unknown): unknown {
  if (state instanceof Tensor) return { $bytes: Buffer.from(state.dataSync() as Uint8Array).toString('base64') }
  if (Array.isArray(state)) return state.map(encodeRng)
  if (typeof state !== 'object' || state === null) return state
  return Object.fromEntries(Object.entries(state).map(([key, value]) => [key, encodeRng(value)]))
}

/** Reverse `encodeRng`. */
export function decodeRng(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(decodeRng)
  if (typeof value !== 'object' || value === null || value instanceof Tensor) return value
  const { $bytes } = value as Record<string, unknown>
  if (typeof $bytes === 'string') {
    // The state of a generator is on the CPU, also for a GPU.
    return tensor(new Uint8Array(Buffer.from($bytes, 'base64')), { dtype: 'uint8', device: 'cpu' })
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decodeRng(item)]))
}

export const warn = (message: string): void => process.emitWarning(message, 'TrainerWarning')
