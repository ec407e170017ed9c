import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import type { Module } from '../nn/module.js'
import { beforeCalls, NativeModule } from '../nn/native-module.js'

const activate = opAsync('voxtorch::module_activate_adapters')
const remove = opAsync('voxtorch::module_remove_adapter')

let count = 0

/** A name for the native slots. It is never used again, so a removal that still waits cannot meet a newer adapter. */
export const nativeName = (name: string): string => `${name}/${++count}`

/** Which adapters are active in a network's slots, and which are to be. */
interface Slots {
  /** The names of those that were activated last. */
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
 * The native networks inside a model. Their forward passes are queued, so adapters are activated by a job of their
 * own, just before a pass is queued and only where it changed: each pass sees what was active when it was called.
 */
export class NativeNetworks {
  readonly #slots: Slots[]

  /** `active` is asked before each call. */
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

/** Jobs that fail only when the process ends before they run; the pass after them then fails too, and says so. */
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
      `${path === '' ? 'the model' : `'${path}'`} is a part of a native network; attach adapters to the whole network`,
      { path },
    )
  }
  return found.map(([, module]) => module)
}
