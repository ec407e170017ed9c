import { quoted } from '../files/byte-source.js'
import { SPACE } from './byte-level.js'
import { Encoding } from './encoding.js'
import type { Fields } from './fields.js'

/** Post-processor: adds special tokens to one text or two. */
export interface PostProcessor {
  /** Return the number of added tokens. */
  added(pair: boolean): number
  process(first: Encoding, second: Encoding | null, addSpecialTokens: boolean): Encoding
  /** Change offsets to exclude the spaces around tokens. */
  trim?(encoding: Encoding, text: string): void
}

/** Access to the vocabulary for post-processors. */
export interface TokenLookup {
  idToToken(id: number): string | undefined
  isAdded(id: number): boolean
}

/** Post-processor that only concatenates the texts; the second has type 1. */
export const joinOnly: PostProcessor = {
  added: () => 0,
  process: (first, second) => (second === null ? first : Encoding.join([first, second.withType(1)])),
}

/**
 * Read the `post_processor` of a tokenizer.json (https://huggingface.co/docs/tokenizers/api/post-processors).
 */
export function readPostProcessor(fields: Fields, lookup: TokenLookup): PostProcessor {
  const type = fields.string('type')
  switch (type) {
    case 'Sequence':
      return sequence(
        fields.objects('processors').map((part) => readPostProcessor(part, lookup)),
        fields,
      )
    case 'ByteLevel': {
      return { ...joinOnly, ...readTrim(fields, lookup) }
    }
    case 'BertProcessing': {
      const [cls, sep] = [special(fields, 'cls'), special(fields, 'sep')]
      return template([cls, 'A', sep], [cls, 'A', sep, ['B', 1], [sep, 1]])
    }
    case 'RobertaProcessing': {
      const [cls, sep] = [special(fields, 'cls'), special(fields, 'sep')]
      return { ...template([cls, 'A', sep], [cls, 'A', sep, sep, 'B', sep]), ...readTrim(fields, lookup) }
    }
    case 'TemplateProcessing':
      return readTemplate(fields)
    default:
      return fields.fail(`expected a known type, got ${quoted(type)}`)
  }
}

/** Apply steps in sequence; only the first step that adds tokens gets two texts. */
function sequence(steps: readonly PostProcessor[], fields: Fields): PostProcessor {
  return {
    added: (pair) => steps.reduce((sum, step) => sum + step.added(pair), 0),
    process(first, second, adds) {
      let [one, two] = [first, second]
      for (const [i, step] of steps.entries()) {
        // Steps that add no tokens process the texts separately, so that a later step can add tokens between them.
        if (i < steps.length - 1 && step.added(true) === 0) {
          one = step.process(one, null, adds)
          two = two && step.process(two, null, adds)
        } else {
          one = step.process(one, two, adds)
          two = null
        }
        const most = MOST_PARTS * (first.length + (second?.length ?? 0) + MOST_PARTS)
        if (one.length > most) {
          fields.fail(`expected at most ${most} tokens for a text of ${first.length}, got ${one.length}`)
        }
      }
      return one
    },
    trim(encoding, text) {
      for (const step of steps) step.trim?.(encoding, text)
    },
  }
}

interface Special {
  ids: number[]
}

/** Part of a template: `A`, `B` or special tokens, with a type id. */
type Part = 'A' | 'B' | Special | ['A' | 'B' | Special, number]

/** Create a post-processor from the templates for one text and for two. */
export function template(single: readonly Part[], pair: readonly Part[]): PostProcessor {
  const count = (parts: readonly Part[]): number =>
    parts.reduce<number>((sum, part) => {
      const what = Array.isArray(part) ? part[0] : part
      return sum + (typeof what === 'string' ? 0 : what.ids.length)
    }, 0)
  return {
    added: (two) => count(two ? pair : single),
    process(first, second, adds) {
      const parts = (second === null ? single : pair).flatMap((part) => {
        const [what, type] = Array.isArray(part) ? part : [part, 0]
        if (what === 'A') return first.withType(type)
        if (what === 'B') return second === null ? [] : second.withType(type)
        return adds ? Encoding.special(what.ids, type) : []
      })
      return Encoding.join(parts)
    },
  }
}

function special(fields: Fields, name: string): Special {
  const pair = fields.list(name)
  if (typeof pair[0] !== 'string' || !Number.isInteger(pair[1])) throw fields.error(name, 'a token and its id', pair)
  return { ids: [pair[1] as number] }
}

/** Most parts of a template. Each part may be a copy of the whole text; published templates have at most six. */
const MOST_PARTS = 100

function readTemplate(fields: Fields): PostProcessor {
  const specials = fields.object('special_tokens')
  const parts = (name: string): Part[] => {
    const { length } = fields.list(name)
    if (length > MOST_PARTS) throw fields.error(name, `a list of at most ${MOST_PARTS} parts`, `${length} parts`)
    return fields.objects(name).map((part): Part => {
      if (part.has('Sequence')) {
        const text = part.object('Sequence')
        const which = text.string('id')
        if (which !== 'A' && which !== 'B') throw text.error('id', '"A" or "B"', which)
        return [which, text.whole('type_id', 0)]
      }
      const token = part.object('SpecialToken')
      const ids = specials.object(token.string('id')).list('ids')
      if (ids.length > MOST_PARTS || !ids.every((id) => Number.isSafeInteger(id))) {
        throw specials.error(token.string('id'), `at most ${MOST_PARTS} ids`, ids)
      }
      return [{ ids: ids as number[] }, token.whole('type_id', 0)]
    })
  }
  return template(parts('single'), parts('pair'))
}

/** Read `trim_offsets`. For tokens of the model, spaces are counted in the token; for added tokens, in the text. */
function readTrim(fields: Fields, lookup: TokenLookup): Pick<PostProcessor, 'trim'> {
  if (!fields.boolean('trim_offsets', true)) return {}
  const addPrefixSpace = fields.boolean('add_prefix_space', true)
  const known = new Map<number, readonly [number, number]>()
  const spacesIn = (token: string): readonly [number, number] => [
    countSpaces(token, 0, 1),
    countSpaces(token, token.length - 1, -1),
  ]
  const spacesOf = (id: number): readonly [number, number] => {
    let spaces = known.get(id)
    if (spaces === undefined) known.set(id, (spaces = spacesIn(lookup.idToToken(id) ?? '')))
    return spaces
  }
  return {
    trim({ inputIds, starts, ends }, text) {
      for (let i = 0; i < inputIds.length; i++) {
        const [start, end] = [starts[i]!, ends[i]!]
        let [before, after] = lookup.isAdded(inputIds[i]!) ? spacesIn(text.slice(start, end)) : spacesOf(inputIds[i]!)
        // A single leading space at the start was added by the tokenizer; a token of only this space is empty.
        if (before === 1 && addPrefixSpace && (i === 0 || start === 0)) {
          before = 0
          if (after === 1) after = end - start
        }
        starts[i] = Math.min(start + before, end)
        if (end >= after) ends[i] = Math.max(end - after, starts[i]!)
      }
    },
  }
}

const space = new RegExp(`[${SPACE}\\p{White_Space}]`, 'u')

function countSpaces(token: string, from: number, step: 1 | -1): number {
  let count = 0
  for (let i = from; i >= 0 && i < token.length && space.test(token[i]!); i += step) count++
  return count
}
