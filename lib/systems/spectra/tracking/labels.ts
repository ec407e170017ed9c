import { requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { checkDstConfig, type DstClassType, type DstConfig, variantsOf } from './config.js'
import { type DstAudio, type DstDialog, type SlotValues, slotValues } from './dialog.js'
import { type DstLabelOptions, dstWords, valueWords } from './text.js'

/** One turn with its labels: stage 1 of the published preparation. Records leave out what is 'none'. */
export interface DstExample {
  dialog: string
  /** 0 for a dialog's first turn. */
  turn: number
  userWords: string[]
  systemWords: string[]
  userAudio: DstAudio | null
  systemAudio: DstAudio | null
  /** What each slot does in this turn. */
  classes: Record<string, DstClassType>
  /** Where the value stands in the user's words: first word, and the one after the last. */
  spans: Record<string, readonly [number, number]>
  /** The slot whose value is taken, where the class is 'refer'. */
  refers: SlotValues
  /** Slots that the system told and that changed: their class is 'inform'. */
  informed: string[]
  /** Values that the system told in this turn or the one before. */
  informs: SlotValues
  /** The last class of each slot before this turn. */
  stateBefore: Record<string, DstClassType>
  /** The values after this turn: what joint goal accuracy compares with. */
  values: SlotValues
}

export interface DstExampleOptions extends DstLabelOptions {
  config: DstConfig
  /**
   * `'published'` keeps told values only of slots that the labels say changed, as the original does also for its test
   * set, where that gives part of the answer away; and its reading of times (see {@link DstLabelOptions}).
   */
  compat?: 'published' | undefined
}

const TURN = { user: { text: 'string' }, system: { text: 'string' }, informed: 'object', changes: 'object' } as const

/**
 * Labels the turns of a dialog with the rules of TripPy (https://arxiv.org/abs/2005.02877) as SpokenWOZ's trainer has
 * them. Of a value that the user says more than once the last place counts. A value that nobody said and no other slot
 * has cannot be pointed at: its class is 'none', though the state has it.
 */
export function dstExamples(dialog: DstDialog, options: DstExampleOptions): DstExample[] {
  requireForm('dstExamples', 'dialog', dialog, { id: 'string', turns: [TURN] })
  requireOptions('dstExamples', options, ['config', 'compat'])
  const config = checkDstConfig(options.config)
  const labels = new Labels(config, options)
  return dialog.turns.map((turn, i) => {
    const userWords = dstWords(turn.user.text)
    const informs = slotValues([
      ...Object.entries(dialog.turns[i - 1]?.informed ?? {}),
      ...Object.entries(turn.informed),
    ])
    return {
      dialog: dialog.id,
      turn: i,
      userWords,
      systemWords: dstWords(turn.system.text),
      userAudio: turn.user.audio,
      systemAudio: turn.system.audio,
      ...labels.next(userWords, turn.changes, informs),
    }
  })
}

type TurnLabels = Pick<DstExample, 'classes' | 'spans' | 'refers' | 'informed' | 'informs' | 'stateBefore' | 'values'>

/** What is known of a dialog up to a turn. */
class Labels {
  private readonly seen = new Map<string, DstClassType | 'unpointable'>()
  private readonly values = slotValues()
  private state: Record<string, DstClassType> = slotValues<DstClassType>()

  constructor(
    private readonly config: DstConfig,
    private readonly options: DstExampleOptions,
  ) {}

  next(words: readonly string[], changes: SlotValues, informs: SlotValues): TurnLabels {
    const stateBefore = this.state
    const turn: TurnLabels = {
      ...{ classes: slotValues<DstClassType>(), spans: slotValues<[number, number]>(), refers: slotValues() },
      ...{ informed: [], informs: slotValues(), stateBefore, values: slotValues() },
    }
    this.state = slotValues(Object.entries(stateBefore))
    // In the order of the slots: one that was labelled just before can be referred to.
    for (const slot of this.config.slots) this.label(slot, words, changes[slot], informs[slot], turn)
    turn.values = slotValues(Object.entries(this.values))
    return turn
  }

  private label(
    slot: string,
    words: readonly string[],
    change: string | undefined,
    informedValue: string | undefined,
    turn: TurnLabels,
  ): void {
    const seen = this.seen.get(slot)
    const value = change ?? this.values[slot] ?? 'none'
    const informed = informedValue !== undefined && change !== undefined
    if (informedValue !== undefined && (informed || this.options.compat === undefined))
      turn.informs[slot] = informedValue
    if (informed) turn.informed.push(slot)

    const { span, refer, kind: found } = this.classOf(slot, value, words)
    // A value that several slots have is not pointed at again: it would be anybody's.
    const shared = seen !== undefined && found === 'copy_value' && this.holders(value) > 1
    if (span !== undefined && !shared) turn.spans[slot] = span
    const kind = informed ? 'inform' : shared ? 'none' : found

    const repeated = kind === seen && kind !== 'copy_value' && kind !== 'inform'
    if (kind !== 'none' && kind !== 'unpointable' && !repeated) {
      turn.classes[slot] = kind
      if (kind === 'refer' && refer !== undefined) turn.refers[slot] = refer
    }
    if (kind === 'none') return
    this.seen.set(slot, kind)
    if (value === 'none') delete this.values[slot]
    else this.values[slot] = value
    this.state[slot] = kind === 'unpointable' ? 'copy_value' : kind
  }

  private classOf(
    slot: string,
    value: string,
    words: readonly string[],
  ): { kind: DstClassType | 'unpointable'; span?: readonly [number, number]; refer?: string } {
    if (value === 'none' || value === 'dontcare' || value === 'true' || value === 'false') return { kind: value }
    const span = [value, ...(variantsOf(this.config, value) ?? [])]
      .map((spelling) => lastPlace(words, valueWords(spelling)))
      .find((place) => place !== undefined)
    if (span !== undefined) return { kind: 'copy_value', span }
    const refer = this.referred(slot, value)
    return refer === undefined ? { kind: 'unpointable' } : { kind: 'refer', refer }
  }

  private holders(value: string): number {
    return this.config.slots.filter((slot) => (this.values[slot] ?? 'none') === value).length
  }

  /** The first slot that has the value, or the last that has another spelling of it. */
  private referred(slot: string, value: string): string | undefined {
    if (NEVER_REFER.has(slot) || this.values[slot] === value) return undefined
    const others = this.config.slots.filter(
      (other) =>
        other !== slot && !NEVER_REFER.has(other) && !countsOther(slot, other) && this.values[other] !== undefined,
    )
    const same = others.find((other) => this.values[other] === value)
    const variants = variantsOf(this.config, value) ?? []
    return same ?? others.reverse().find((other) => variants.includes(this.values[other] as string))
  }
}

/** Their values mean something else in other slots. */
const NEVER_REFER = new Set(['hotel-stars', 'hotel-internet', 'hotel-parking'])

/** Numbers of guests and of nights are no reference to each other, nor guests of the hotel to those of a restaurant. */
const countsOther = (slot: string, other: string): boolean => {
  const people = /^(hotel|restaurant)-book people/
  if (people.test(other)) return slot === 'hotel-book stay' || people.test(slot)
  return people.test(slot) && other === 'hotel-book stay'
}

function lastPlace(words: readonly string[], value: readonly string[]): [number, number] | undefined {
  if (value.length === 0) return undefined
  for (let start = words.length - value.length; start >= 0; start -= 1) {
    if (value.every((word, i) => words[start + i] === word)) return [start, start + value.length]
  }
  return undefined
}
