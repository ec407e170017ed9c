import { mapMayGrow, tooMuch } from '../../base/heap.js'
import { Buildable, Callable, Marker, PyDict, PyRecord, type Site } from './objects.js'
import { Resolved } from './resolvers.js'

/** Call a name of the allow-list, or record a call of the caller's code; `construct` creates an instance of a class. */
export function call(target: unknown, args: unknown, site: Site, construct: boolean): unknown {
  if (target instanceof Resolved) return target.by.call(target, args, construct, site)
  if (!(target instanceof Callable)) throw site.error(`it calls ${nameOf(target)}`, globalOf(target))
  if (!Array.isArray(args)) throw site.error(`it calls ${target.name} without a list of arguments`, globalOf(target))
  return target.call(args, site)
}

/** Give an object its state. Only objects of this reader have one, and none of them runs code. */
export function build(target: unknown, state: unknown, site: Site): void {
  if (target instanceof Resolved) target.by.build(target, state, site)
  else if (target instanceof Buildable) target.build(state, site)
  else if (target instanceof PyRecord) fillRecord(target, state, site)
  // An OrderedDict may have attributes, like the `_metadata` of a state dict. They are not items.
  else if (!(target instanceof PyDict)) throw site.error(`it gives a state to ${nameOf(target)}`, globalOf(target))
}

function fillRecord(record: PyRecord, state: unknown, site: Site): void {
  // With __slots__ the state is a pair: the dict and the slots.
  const parts = Array.isArray(state) && state.length === 2 ? state : [state]
  for (const part of parts) {
    if (part === null) continue
    if (!(part instanceof PyDict)) throw site.error(`expected a dict as state of ${record.className}`)
    site.charge(part.size)
    for (const [key, value] of part) {
      if (typeof key !== 'string') throw site.error(`expected a name for each field of ${record.className}`)
      if (!mapMayGrow(record.size)) throw site.error(tooMuch())
      record.set(key, value)
    }
  }
}

export function nameOf(target: unknown): string {
  if (target instanceof Callable || target instanceof Marker || target instanceof Resolved) return target.name
  if (Array.isArray(target)) return 'a list'
  return target === null ? 'None' : typeof target === 'object' ? 'an object' : `a ${typeof target}`
}

export function globalOf(target: unknown): Record<string, unknown> {
  return target instanceof Callable || target instanceof Marker ? { global: target.name } : {}
}
