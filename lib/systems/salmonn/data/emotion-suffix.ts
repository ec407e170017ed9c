import { requireOneOf, requireString } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { withoutEnd } from '../../../base/words.js'

/** Label at the beginning of the line of emotions, by language. */
export const EMOTION_LABELS = { zh: '情绪序列', en: 'Emotion sequence' } as const
export type EmotionLanguage = keyof typeof EMOTION_LABELS

const LINE = /^[ \t]*(?:情绪序列|情感序列|emotion[ _]sequence)[ \t]*[:：](.*)$/gimu
const ARROW = /->|→|⇒|=>|＞/u

/** Append a line with the user's emotion in each turn, in lower case: the published suffix. */
export function writeEmotionSuffix(
  text: string,
  emotions: readonly string[],
  language: EmotionLanguage = 'zh',
): string {
  requireString('writeEmotionSuffix', 'text', text)
  requireForm('writeEmotionSuffix', 'emotions', emotions, ['string'])
  requireOneOf('writeEmotionSuffix', 'language', language, Object.keys(EMOTION_LABELS))
  if (emotions.length === 0) return text
  return `${text}\n${EMOTION_LABELS[language]}: ${emotions.map(plainLabel).join(' -> ')}`
}

/**
 * Split off the line of emotions; the last line counts if there are several. `emotions` is null if there is none, or if it is empty.
 */
export function parseEmotionSuffix(text: string): { text: string; emotions: string[] | null } {
  requireString('parseEmotionSuffix', 'text', text)
  const last = [...text.matchAll(LINE)].at(-1)
  if (!last) return { text, emotions: null }
  const rest = text.slice(0, last.index).replace(/\r?\n$/, '') + text.slice(last.index + last[0].length)
  const emotions = splitEmotions(last[1] as string)
  return { text: rest, emotions: emotions.length > 0 ? emotions : null }
}

/** Parse `Neutral -> happy` into its labels, in lower case. */
export function splitEmotions(line: string): string[] {
  requireString('splitEmotions', 'line', line)
  return line
    .split(ARROW)
    .map((label) => plainLabel(withoutEnd(label.replace(/<\/?s>/g, '').trimEnd(), /[.。;；]/)))
    .filter((label) => label !== '')
}

const plainLabel = (label: string): string => label.trim().toLowerCase()
