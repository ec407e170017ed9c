import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import type { Module } from '../nn/module.js'
import { beforeCalls, NativeModule } from '../nn/native-module.js'

const activate = opAsync('voxtorch::module_activate_adapters')
const remove = opAsync('voxtorch::module_remove_adapter')

let count = 0

/** A name for the native slots. It is never used again, so a removal that still waits cannot meet a newer adapter. */
export const nativeName = (name: string): string => `${name}/${++count}`

/** What the slots of a network know, and what they are to be told. */
interface Slots {
  told: string
  active: () => readonly string[]
  removed: string[]
}

const known = new WeakMap<NativeModule, Slots>()

function slotsOf(network: NativeModule): Slots {
  const found = known.get(network)
  if (found) return found
  const slots: Slots = { told: '', active: () => [], removed: [] }
  known.set(network, slots)
  beforeCalls(network, (handle) => {
    const names = slots.active()
    const key = names.join('\n')
    if (key !== slots.told) queue(activate(handle, names))
    slots.told = key
    for (const name of slots.removed.splice(0)) queue(remove(handle, name))
  })
  return slots
}

/**
 * The native networks inside a model. Their forward passes are queued, so what is active is told to them as a job of its
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
