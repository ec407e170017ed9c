import { requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { checkDstConfig, type DstClassType, type DstConfig, variantsOf } from './config.js'
import { type DstAudio, type DstDialog, type SlotValues, slotValues } from './dialog.js'
import { type DstLabelOptions, dstWords, valueWords } from './text.js'

/** One turn with its labels: stage 1 of the published preparation. Records omit slots with 'none'. */
export interface DstExample {
  dialog: string
  /** 0 for a dialog's first turn. */
  turn: number
  userWords: string[]
  systemWords: string[]
  userAudio: DstAudio | null
  systemAudio: DstAudio | null
  /** Class of each slot in this turn. */
  classes: Record<string, DstClassType>
  /** Position of the value in the user's words: first word, and the word after the last. */
  spans: Record<string, readonly [number, number]>
  /** The referenced slot, for the class 'refer'. */
  refers: SlotValues
  /** Slots that the system mentioned and that changed: their class is 'inform'. */
  informed: string[]
  /** Values that the system mentioned in this turn or the previous one. */
  informs: SlotValues
  /** The last class of each slot before this turn. */
  stateBefore: Record<string, DstClassType>
  /** Values after this turn: the targets of joint goal accuracy. */
  values: SlotValues
}

export interface DstExampleOptions extends DstLabelOptions {
  config: DstConfig
  /**
   * `'published'` keeps mentioned values only of slots whose label changed, as the original does. It does this also on its test set,
   * which reveals part of the labels. It also parses times like the original (see {@link DstLabelOptions}).
   */
  compat?: 'published' | undefined
}

const TURN = { user: { text: 'string' }, system: { text: 'string' }, informed: 'object', changes: 'object' } as const

/**
 * Label the turns of a dialog with the rules of TripPy (https://arxiv.org/abs/2005.02877) as in SpokenWOZ's trainer. If the user mentions a
 * value several times, the last position is the label. A value that was not mentioned and is not in another slot cannot be predicted:
 * its class is 'none', although it is in the state.
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

/** The state of a dialog up to a turn. */
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
    // In the order of the slots: a slot can refer to one before it in the same turn.
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
    const lastKind = this.seen.get(slot)
    const value = change ?? this.values[slot] ?? 'none'
    const informed = informedValue !== undefined && change !== undefined
    if (informedValue !== undefined && (informed || this.options.compat === undefined))
      turn.informs[slot] = informedValue
    if (informed) turn.informed.push(slot)

    const { span, refer, kind: found } = this.classOf(slot, value, words)
    // A value that several slots share gets no new span, as it would be ambiguous.
    const shared = lastKind !== undefined && found === 'copy_value' && this.holders(value) > 1
    if (span !== undefined && !shared) turn.spans[slot] = span
    const kind = informed ? 'inform' : shared ? 'none' : found

    const repeated = kind === lastKind && kind !== 'copy_value' && kind !== 'inform'
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

  /** Return the first slot with the value, or the last slot with another spelling of it. */
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

/** Slots whose values have another meaning in other slots. */
const NEVER_REFER = new Set(['hotel-stars', 'hotel-internet', 'hotel-parking'])

/** Return whether two slots count different things: people and nights, or people in a hotel and in a restaurant. */
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
