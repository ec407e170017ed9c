const known = new WeakMap<object, number>()
let next = 0

/** Return a number that no other object has. That of a tensor changes with `setData`. */
export function identityOf(object: object): number {
  let number = known.get(object)
  if (number === undefined) known.set(object, (number = next++))
  return number
}

/** Give an object another number. */
export const renewIdentity = (object: object): boolean => known.delete(object)
