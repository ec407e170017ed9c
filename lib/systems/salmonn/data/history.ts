import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import type { HumDialDialog } from '../published/humdial.js'

export type SalmonnLanguage = 'zh' | 'en'

export const DIALOG_TEXT_SETTINGS = settings({
  /** Language. Default: that of the dialog's text. */
  language: { type: ['zh', 'en'], help: 'language of the request', defaultText: 'that of the dialog' },
  /** 'labeled' names the speaker of each line; 'plain' does not, as in the published data file. // language: option value */
  style: {
    type: ['labeled', 'plain'],
    help: 'lines with the name of the speaker, or plain lines as in the published file',
    default: 'labeled',
  },
})

/** @interface */
export type DialogTextOptions = ChangesOf<typeof DIALOG_TEXT_SETTINGS.table>

/**
 * Build the `input_text` of a converted dialog: its turns up to the last question, and the request to describe the course of the user's
 * emotions, with the number of turns. A turn without text has only its speaker.
 */
export function trajectoryRequest(dialog: Pick<HumDialDialog, 'turns'>, options: DialogTextOptions = {}): string {
  const where = 'trajectoryRequest'
  requireForm(where, 'dialog', dialog, { turns: [{ text: 'string', reply: 'string', 'speaker?': 'string' }] })
  const { style, ...read } = DIALOG_TEXT_SETTINGS.read(where, options)
  const { turns } = dialog
  const { language = languageOf(turns.map(({ text }) => text).join(' ')) } = read
  const words = WORDS[language]
  const labeled = style === 'labeled'
  const people = turns.some(({ speaker }) => speaker !== undefined)
  const lines = turns.flatMap(({ text, reply, speaker }, i) => [
    labeled ? words.said(i + 1, text, speaker) : text,
    ...(i < turns.length - 1 && reply !== '' ? [labeled ? words.replied(i + 1, reply) : reply] : []),
  ])
  return [...(labeled ? [words.header] : []), ...lines, words.request(turns.length, people)].join('\n')
}

const ZH_NUMBERS = ['零', '一', '两', '三', '四', '五', '六', '七', '八', '九', '十']
const EN_NUMBERS = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten']

const WORDS = {
  zh: {
    header: '以下是到目前为止的对话：',
    said: (turn: number, text: string, speaker = '用户') =>
      `第${turn}轮${text === '' ? `：${speaker}` : `，${speaker}说：${text}`}`,
    replied: (turn: number, text: string) => `第${turn}轮，模型答：${text}`,
    request: (count: number, people: boolean) =>
      `请结合各段录音中的笑声、叹气和语气，概括${people ? '每位说话人' : '用户'}在这${ZH_NUMBERS[count] ?? count}轮对话中的情绪变化过程。`,
  },
  en: {
    header: 'The conversation so far:',
    said: (turn: number, text: string, speaker = 'the user') =>
      `Turn ${turn}${text === '' ? `: ${speaker}` : `, ${speaker} says: ${text}`}`,
    replied: (turn: number, text: string) => `Turn ${turn}, the model answers: ${text}`,
    request: (count: number, people: boolean) =>
      `Listen to laughter, sighs and tone in the recordings, and describe how ${people ? "each speaker's" : "the user's"} emotion changes over ${count === 1 ? 'this one turn' : `these ${EN_NUMBERS[count] ?? count} turns`}.`,
  },
}

/** Return 'zh' if there are more Chinese characters than Latin words. */
export function languageOf(text: string): SalmonnLanguage {
  const characters = text.match(/\p{Script=Han}/gu)?.length ?? 0
  // Tags such as [laughter] are English in both languages.
  const words = withoutTags(text).match(/[A-Za-z]+/g)?.length ?? 0
  return characters > words ? 'zh' : 'en'
}

/** Replace each `[…]` and `<…>` by a space. An unclosed bracket stays, and its end is searched only once. */
function withoutTags(text: string): string {
  const ends: Record<string, string> = { '[': ']', '<': '>' }
  let rest = ''
  let from = 0
  for (let at = 0; at < text.length; at++) {
    const sign = text[at] as string
    if (ends[sign] === undefined) continue
    const end = text.indexOf(ends[sign], at + 1)
    if (end < 0) delete ends[sign]
    else {
      rest += `${text.slice(from, at)} `
      from = end + 1
      at = end
    }
  }
  return rest + text.slice(from)
}
