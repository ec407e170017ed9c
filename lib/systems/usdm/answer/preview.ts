import { readFile } from 'node:fs/promises'
import { basename, extname } from 'node:path'
import { argumentError, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { escaped } from '../../../base/words.js'
import { page } from '../../../kit/figure.js'
import { IGNORED, type UsdmExample } from '../data/prompt.js'
import { UsdmTokenizer } from '../data/text.js'

/** A run of tokens of an example that either all contribute to the loss, or none do. */
export interface PreviewPart {
  text: string
  /** Whether its tokens contribute to the loss. */
  learnt: boolean // language: public field
}

/** Return an example as text, in runs of tokens. Repeated units are written once with their count, as `<|unit7|>×3`. */
export function previewParts(tokenizer: UsdmTokenizer, example: UsdmExample): PreviewPart[] {
  if (!(tokenizer instanceof UsdmTokenizer))
    throw argumentError('previewParts', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  requireForm('previewParts', 'example', example, { inputIds: 'list', labels: 'list' })
  const { inputIds, labels } = example
  const parts: { ids: number[]; learnt: boolean }[] = []
  for (const [i, id] of inputIds.entries()) {
    const learnt = labels[i] !== IGNORED
    const last = parts.at(-1)
    if (last?.learnt === learnt) last.ids.push(id)
    else parts.push({ ids: [id], learnt })
  }
  return parts.map(({ ids, learnt }) => ({ text: written(tokenizer, ids), learnt }))
}

function written(tokenizer: UsdmTokenizer, ids: readonly number[]): string {
  const runs: string[] = []
  let words: number[] = []
  const flush = () => {
    if (words.length > 0) runs.push(tokenizer.decode(words))
    words = []
  }
  for (let at = 0; at < ids.length; ) {
    const id = ids[at] as number
    if (!tokenizer.isUnit(id)) {
      words.push(id)
      at += 1
      continue
    }
    let end = at
    while (ids[end] === id) end += 1
    flush()
    runs.push(`${tokenizer.decode([id])}${end - at > 1 ? `×${end - at}` : ''}`)
    at = end
  }
  flush()
  return runs.join('')
}

/** Format an example for a terminal: target tokens in green, or without colors between ⟦ and ⟧. */
export function previewText(tokenizer: UsdmTokenizer, example: UsdmExample, useColors: boolean): string {
  const [open, close] = useColors ? ['\u001b[32m', '\u001b[0m'] : ['⟦', '⟧']
  return previewParts(tokenizer, example)
    .map(({ text, learnt }) => (learnt ? `${open}${text}${close}` : text))
    .join('')
}

const TYPES: Record<string, string> = {
  '.wav': 'audio/wav',
  '.mp3': 'audio/mpeg',
  '.flac': 'audio/flac',
  '.ogg': 'audio/ogg',
}

/** Return a self-contained HTML page of an example, with the clips embedded. @throws DataError for a clip that cannot be read */
export async function previewPage(
  tokenizer: UsdmTokenizer,
  example: UsdmExample,
  options: { title: string; clips: readonly string[] },
): Promise<string> {
  requireOptions('previewPage', options, ['title', 'clips'])
  requireForm('previewPage', 'options', options, { title: 'string', clips: ['string'] })
  const { title, clips } = options
  const text = previewParts(tokenizer, example).map(({ text, learnt }) =>
    learnt ? `<mark>${escaped(text)}</mark>` : escaped(text),
  )
  const players = await Promise.all(
    clips.map(async (path) => {
      const bytes = await readFile(path).catch((cause: Error) => {
        throw new DataError(`${path}: expected a readable audio file: ${cause.message}`, { file: path, cause })
      })
      const type = TYPES[extname(path).toLowerCase()] ?? 'audio/wav'
      const name = escaped(basename(path))
      return `<figure><figcaption>${name}</figcaption><audio controls aria-label="${name}" src="data:${type};base64,${bytes.toString('base64')}"></audio></figure>`
    }),
  )
  const learnt = example.labels.filter((label) => label !== IGNORED).length
  return page({
    title,
    lead: `${example.inputIds.length} tokens. The ${learnt} marked tokens contribute to the loss.`, // language: name of a public field
    parts: [...players, `<pre>${text.join('')}</pre>`],
    style:
      'pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--sheet);padding:16px}mark{background:#2e7d3233;color:inherit}audio{width:100%}',
  })
}
