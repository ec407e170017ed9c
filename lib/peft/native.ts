import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import type { Module } from '../nn/module.js'
import { beforeCalls, NativeModule } from '../nn/native-module.js'

const activate = opAsync('voxtorch::module_activate_adapters')
const remove = opAsync('voxtorch::module_remove_adapter')

let count = 0

/** Return a unique name for the native slots, so that a pending removal cannot affect a newer adapter of the same name. */
export const nativeName = (name: string): string => `${name}/${++count}`

/** Active adapters in a network's slots, and the requested ones. */
interface Slots {
  /** Names of the adapters that were activated last. */
  current: string
  active: () => readonly string[]
  removed: string[]
}

const known = new WeakMap<NativeModule, Slots>()

function slotsOf(network: NativeModule): Slots {
  const found = known.get(network)
  if (found) return found
  const slots: Slots = { current: '', active: () => [], removed: [] }
  known.set(network, slots)
  beforeCalls(network, (handle) => {
    const names = slots.active()
    const key = names.join('\n')
    if (key !== slots.current) queue(activate(handle, names))
    slots.current = key
    for (const name of slots.removed.splice(0)) queue(remove(handle, name))
  })
  return slots
}

/**
 * Native networks inside a model. Their forward passes are queued, so a job just before a pass activates adapters if they
 * changed: each pass uses the adapters that were active when it was called.
 */
export class NativeNetworks {
  readonly #slots: Slots[]

  /** `active` is called before each pass. */
  constructor(model: Module, active: () => readonly string[]) {
    this.#slots = tops(model).map(slotsOf)
    for (const slots of this.#slots) slots.active = active
  }

  remove(name: string): void {
    for (const slots of this.#slots) slots.removed.push(name)
  }

  release(): void {
    for (const slots of this.#slots) slots.active = () => []
  }
}

/** Queue a job that fails only if the process ends before it runs; the pass after it then fails too, and reports that. */
function queue(job: Promise<unknown>): void {
  job.catch(() => {})
}

function tops(model: Module): NativeModule[] {
  const found: [string, NativeModule][] = []
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof NativeModule)) continue
    if (!found.some(([outer]) => outer === '' || path.startsWith(`${outer}.`))) found.push([path, module])
  }
  for (const [path, module] of found) {
    if (module.constructor !== NativeModule) continue
    throw new ConfigError(
      `${path === '' ? 'the model' : `'${path}'`}: expected a whole native network, got a part of one. Attach adapters to the network`,
      { path },
    )
  }
  return found.map(([, module]) => module)
}
