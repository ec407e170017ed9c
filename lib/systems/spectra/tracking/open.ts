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
  /** Folder of SpokenWOZ's recordings, default `audio` in the data folder; or base folder of the pickles' paths, default the data folder. */
  audio?: string
  maxLength?: number
  compat?: 'published' | undefined
}

export interface DstSplit {
  features: DstFeatures[]
  /** The file that was read. */
  source: string
  /** Number of turns cut to `maxLength`, and of labels lost by it. Both 0 for published features. */
  truncated: number
  lostSpans: number
  /** Report of SpokenWOZ's own format. */
  report?: SpokenWozReport
}

/**
 * Load a split from the first of these files in a folder that exists: `<split>.jsonl` (see {@link readDstDialogs}), the published
 * `<split>_feature_roberta_nohistory.pkl` and `<split>_example.pkl`, and SpokenWOZ's own `data.json` or `<split>.json` with
 * `<split>ListFile.json`.
 * @throws DataError that lists the files if none exists
 */
export async function loadDstSplit(folder: string, split: string, options: LoadDstSplitOptions): Promise<DstSplit> {
  requireString('loadDstSplit', 'folder', folder)
  requireString('loadDstSplit', 'split', split)
  checkDstConfig(options.config)
  const { config, audio = folder, compat } = options
  const jsonlFile = join(folder, `${split}.jsonl`)
  if (await exists(jsonlFile))
    return fromDialogs(jsonlFile, await readDstDialogs(jsonlFile, { config, compat }), options)

  const stage2 = join(folder, `${split}_feature_roberta_nohistory.pkl`)
  if (await exists(stage2)) {
    const features = await readDstFeatures(stage2, { config, audio })
    return { features, source: stage2, truncated: 0, lostSpans: 0 }
  }
  const stage1 = join(folder, `${split}_example.pkl`)
  if (await exists(stage1)) return fromExamples(stage1, await readDstExamples(stage1, { config, audio }), options)

  const list = join(folder, `${split}ListFile.json`)
  const wozFiles = [join(folder, `${split}.json`), join(folder, 'data.json')]
  for (const wozFile of wozFiles) {
    if (!(await exists(wozFile))) continue
    const recordings = options.audio ?? join(folder, 'audio')
    const { dialogs, report } = await readSpokenWoz(wozFile, {
      ...{ config, compat },
      ...((await exists(recordings)) && { audio: recordings }),
      ...((await exists(list)) && { dialogs: await readSpokenWozList(list) }),
    })
    return { ...fromDialogs(wozFile, dialogs, options), report }
  }
  throw new DataError(
    `${folder}: expected dialogs of the split '${split}' in one of ${[jsonlFile, stage2, stage1, ...wozFiles].join(', ')}, got none of them`,
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
