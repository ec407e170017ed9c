import { Random } from '../../data/random.js'
import { CheckpointError } from '../../native/errors.js'
import { cuda, Generator, getNumThreads, getRngState, setRngState, Tensor } from '../../tensor/index.js'

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
  const states = others as Record<string, unknown> | undefined
  if (!(cpu instanceof Tensor) || !Array.isArray(devices) || typeof states !== 'object') {
    throw new CheckpointError(`${file} lacks the states of random number generators`, { file })
  }
  setRngState(cpu)
  const count = cuda.deviceCount()
  devices.slice(0, count).forEach((state, i) => {
    setRngState(state as Tensor, `cuda:${i}`)
  })
  if (devices.length !== count) {
    warn(
      `${file} was written with ${devices.length} CUDA devices, there are ${count}: random numbers there will differ`,
    )
  }
  for (const [name, generator] of Object.entries(own)) {
    const state = Object.hasOwn(states, name) ? states[name] : undefined
    if (generator instanceof Random && Array.isArray(state)) generator.setState(state)
    else if (generator instanceof Generator && state instanceof Tensor) generator.setState(state)
    else throw new CheckpointError(`${file} lacks the state of the generator ${name}`, { file, generator: name })
  }
  if (threads !== getNumThreads()) {
    warn(
      `${file} was written with ${threads} threads, there are ${getNumThreads()} now, so sums may be rounded otherwise: ` +
        `call setNumThreads(${threads}) for the same numbers`,
    )
  }
}

export const warn = (message: string): void => process.emitWarning(message, 'TrainerWarning')
