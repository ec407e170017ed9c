import { readFile } from 'node:fs/promises'
import { requireString, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import { parseJson } from '../../../files/json/json.js'

/** Classes of a slot in a turn, in the order of SpokenWOZ's class ids. */
export const DST_CLASS_TYPES = ['none', 'dontcare', 'copy_value', 'true', 'false', 'refer', 'inform'] as const

export type DstClassType = (typeof DST_CLASS_TYPES)[number]

/** SpokenWOZ's 36 slots, in the order of the published configuration, which is also that of the refer classes. */
export const SPOKENWOZ_SLOTS: readonly string[] = [
  ...['hotel-pricerange', 'hotel-type', 'hotel-parking', 'hotel-book day', 'restaurant-name', 'restaurant-area'],
  ...['profile-email', 'profile-name', 'restaurant-food', 'restaurant-pricerange', 'restaurant-book people'],
  ...['restaurant-book time', 'restaurant-book day', 'hotel-internet', 'hotel-stars', 'taxi-arriveby'],
  ...['profile-phonenumber', 'taxi-leaveat', 'hotel-name', 'hotel-book stay', 'hotel-area', 'hotel-book people'],
  ...['taxi-destination', 'taxi-departure', 'profile-idnumber', 'train-destination', 'train-day', 'train-arriveby'],
  ...['train-departure', 'train-leaveat', 'train-book people', 'attraction-name', 'attraction-type'],
  ...['attraction-area', 'profile-platenumber', 'hospital-department'],
]

/** Slots of a dialog state, their classes, and spellings of the same value. */
export interface DstConfig {
  /** Some of {@link DST_CLASS_TYPES}, in the order of the class ids; `none` is the first. */
  classTypes: readonly DstClassType[]
  slots: readonly string[]
  /** Other spellings of a value: `{ centre: ['center', 'downtown'] }`. */ // language: SpokenWOZ's own label
  labelMaps: Readonly<Record<string, readonly string[]>>
}

/** Return SpokenWOZ's slots and classes. `labelMaps` are those of its `config.json`; without them a value has one spelling. */
export const spokenWozConfig = (labelMaps: DstConfig['labelMaps'] = {}): DstConfig =>
  checkDstConfig({ classTypes: DST_CLASS_TYPES, slots: SPOKENWOZ_SLOTS, labelMaps })

/**
 * Read a configuration in TripPy's format, `{ class_types, slots, label_maps }`, such as SpokenWOZ's `data/config.json`.
 * `class_types` (default: the seven of SpokenWOZ) and `label_maps` are optional.
 * @throws DataError for a file that is not a JSON object; ConfigError for invalid contents
 */
export async function readDstConfig(path: string): Promise<DstConfig> {
  requireString('readDstConfig', 'path', path)
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (cause) {
    throw new DataError(`${path}: expected a readable configuration: ${(cause as Error).message}`, {
      file: path,
      cause,
    })
  }
  const value = (await parseJson([bytes], path)) as Record<string, unknown> | null
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DataError(`${path}: expected an object with slots, class_types and label_maps, got ${shown(value)}`, {
      file: path,
    })
  }
  const known = ['class_types', 'slots', 'label_maps']
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue
    const near = nearest(key, known)
    throw new ConfigError(
      `${path}: expected the keys ${known.join(', ')}, got '${key}'${near ? `, did you mean '${near}'?` : ''}`,
      { file: path, key },
    )
  }
  return checkDstConfig({
    classTypes: (value.class_types ?? DST_CLASS_TYPES) as DstClassType[],
    slots: value.slots as string[],
    labelMaps: (value.label_maps ?? {}) as Record<string, string[]>,
  })
}

/** Validate a configuration. @throws ConfigError that names the first error */
export function checkDstConfig(config: DstConfig): DstConfig {
  const fail = (what: string, fields: object = {}) => new ConfigError(`DstConfig${what}`, { ...fields })
  if (typeof config !== 'object' || config === null) throw fail(`: expected an object, got ${shown(config)}`)
  const { classTypes, slots, labelMaps } = config
  if (!isStrings(slots) || slots.length === 0) throw fail(`.slots: expected an array of names, got ${shown(slots)}`)
  if (!isStrings(classTypes)) throw fail(`.class_types: expected an array of names, got ${shown(classTypes)}`)
  for (const [name, list] of Object.entries<readonly string[]>({ slots, class_types: classTypes })) {
    const twice = list.find((item, i) => list.indexOf(item) !== i)
    if (twice !== undefined) throw fail(`.${name}: expected distinct names, got '${twice}' twice`, { key: name })
  }
  for (const slot of slots) {
    // A dot would give two modules the same name in the state dict.
    if (slot === '' || slot === 'none' || slot.includes('.') || slot === '__proto__')
      throw fail(`.slots: expected names without a dot, except 'none' and '__proto__', got '${slot}'`, { slot })
  }
  for (const type of classTypes) {
    if ((DST_CLASS_TYPES as readonly string[]).includes(type)) continue
    const near = nearest(type, DST_CLASS_TYPES)
    throw fail(
      `.class_types: expected ${DST_CLASS_TYPES.join(', ')}, got '${type}'${near ? `, did you mean '${near}'?` : ''}`,
      { classType: type },
    )
  }
  if (classTypes[0] !== 'none') throw fail(`.class_types: expected 'none' as the first, got ${shown(classTypes[0])}`)
  if (!classTypes.includes('copy_value')) {
    throw fail(`.class_types: expected 'copy_value', got only ${classTypes.join(', ')}`)
  }
  if (typeof labelMaps !== 'object' || labelMaps === null || Array.isArray(labelMaps))
    throw fail(`.label_maps: expected an object, got ${shown(labelMaps)}`)
  for (const [value, variants] of Object.entries(labelMaps)) {
    if (!isStrings(variants)) {
      throw fail(`.label_maps['${value}']: expected an array of strings, got ${shown(variants)}`, { value })
    }
  }
  return config
}

const known = new WeakSet<DstConfig>()

/** Validate a configuration as {@link checkDstConfig}, only once per object, for functions called often. */
export function knownDstConfig(config: DstConfig): DstConfig {
  if (typeof config === 'object' && config !== null && known.has(config)) return config
  checkDstConfig(config)
  known.add(config)
  return config
}

/** Return other spellings of `value`; undefined if the maps do not contain it. */
export const variantsOf = ({ labelMaps }: DstConfig, value: string): readonly string[] | undefined =>
  Object.hasOwn(labelMaps, value) ? labelMaps[value] : undefined

const isStrings = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string')
