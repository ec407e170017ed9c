import { join } from 'node:path'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { checkDstConfig, type DstConfig } from './config.js'
import { type DstDialog, exists, readDstDialogs } from './dialog.js'
import { type DstFeatures, DstFeaturizer, type DstTokenizer } from './features.js'
import { type DstExample, dstExamples } from './labels.js'
import { readDstExamples, readDstFeatures } from './published-pickles.js'
import { readSpokenWoz, readSpokenWozList, type SpokenWozReport } from './published-spokenwoz.js'

export interface LoadDstSplitOptions {
  config: DstConfig
  tokenizer: DstTokenizer
  /** The folder of SpokenWOZ's recordings, or that the pickles' paths are in. Default: `audio` in the folder for the first, the folder for the second. */
  audio?: string
  maxLength?: number
  compat?: 'published' | undefined
}

export interface DstSplit {
  features: DstFeatures[]
  /** The file that it was read from. */
  source: string
  /** Turns cut to `maxLength`, and labels lost by that. Both 0 where features were read as they are. */
  truncated: number
  lostSpans: number
  /** Of SpokenWOZ's own form. */
  report?: SpokenWozReport
}

/**
 * Reads a split of a folder from the first of these files that is there: `<split>.jsonl` (see {@link readDstDialogs}), the
 * published `<split>_feature_roberta_nohistory.pkl` and `<split>_example.pkl`, and SpokenWOZ's own `data.json` or
 * `<split>.json` with `<split>ListFile.json`.
 * @throws DataError that lists them when none is there
 */
export async function loadDstSplit(folder: string, split: string, options: LoadDstSplitOptions): Promise<DstSplit> {
  requireString('loadDstSplit', 'folder', folder)
  requireString('loadDstSplit', 'split', split)
  checkDstConfig(options.config)
  const { config, audio = folder, compat } = options
  const own = join(folder, `${split}.jsonl`)
  if (await exists(own)) return fromDialogs(own, await readDstDialogs(own, { config, compat }), options)

  const stage2 = join(folder, `${split}_feature_roberta_nohistory.pkl`)
  if (await exists(stage2)) {
    const features = await readDstFeatures(stage2, { config, audio })
    return { features, source: stage2, truncated: 0, lostSpans: 0 }
  }
  const stage1 = join(folder, `${split}_example.pkl`)
  if (await exists(stage1)) return fromExamples(stage1, await readDstExamples(stage1, { config, audio }), options)

  const list = join(folder, `${split}ListFile.json`)
  const wholes = [join(folder, `${split}.json`), join(folder, 'data.json')]
  for (const whole of wholes) {
    if (!(await exists(whole))) continue
    const recordings = options.audio ?? join(folder, 'audio')
    const { dialogs, report } = await readSpokenWoz(whole, {
      ...{ config, compat },
      ...((await exists(recordings)) && { audio: recordings }),
      ...((await exists(list)) && { dialogs: await readSpokenWozList(list) }),
    })
    return { ...fromDialogs(whole, dialogs, options), report }
  }
  throw new DataError(
    `${folder} has no dialogs of the split '${split}': looked for ${[own, stage2, stage1, ...wholes].join(', ')}`,
    { folder, split },
  )
}

const fromDialogs = (source: string, dialogs: readonly DstDialog[], options: LoadDstSplitOptions): DstSplit =>
  fromExamples(
    source,
    dialogs.flatMap((dialog) => dstExamples(dialog, { config: options.config, compat: options.compat })),
    options,
  )

function fromExamples(source: string, examples: readonly DstExample[], options: LoadDstSplitOptions): DstSplit {
  const featurizer = new DstFeaturizer(options)
  const features = examples.map((example) => featurizer.features(example))
  return { features, source, truncated: featurizer.truncated, lostSpans: featurizer.lostSpans }
}
