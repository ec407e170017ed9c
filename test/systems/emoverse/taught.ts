import { AdamW, InternVL, scope } from '../../../lib/index.js'
import { EmoVerse, type EmoVerseQuestion, emoverseCollate, emoverseLoss } from '../../../lib/systems/emoverse/index.js'
import { facePpm } from '../../serve/models.mjs'
import { byteTokenizer, TINY_SEEING } from './tiny.js'

/** Drawn faces, of which one smiles. */
export const FACES = { joy: facePpm({ smile: 1 }), sadness: facePpm({ smile: -1, ground: [160, 60, 40] }) }

/** The published question about an emotion, in MELD's names. */
export const EMOTION_QUESTION =
  '<emotion> Please determine which emotion label in the video represents: anger, sadness, surprise, disgust, joy, neutral or fear.'

/** What it is asked and taught to say of each face, in two turns. */
export const LESSONS: (EmoVerseQuestion & { response: string })[] = [
  { query: `<image>${EMOTION_QUESTION}`, response: 'Joy.', images: [FACES.joy] },
  { query: `<image>${EMOTION_QUESTION}`, response: 'Sadness.', images: [FACES.sadness] },
  { query: 'Why?', history: [[`<image>${EMOTION_QUESTION}`, 'Joy.']], response: 'A smile.', images: [FACES.joy] },
  { query: 'Why?', history: [[`<image>${EMOTION_QUESTION}`, 'Sadness.']], response: 'No smile.', images: [FACES.sadness] },
] // biome-ignore format: a lesson a line

/** A tiny EmoVerse that learnt by heart what {@link LESSONS} say; its tiles have 112 pixels, and its text has room for conversations. */
export async function taughtEmoVerse(steps = 90): Promise<EmoVerse> {
  const tokenizer = await byteTokenizer(['<img>', '</img>', '<IMG_CONTEXT>'])
  const { visionConfig, llmConfig, ...rest } = TINY_SEEING
  const config = {
    ...rest,
    forceImageSize: 112,
    visionConfig: { ...visionConfig, imageSize: 112, patchSize: 28, initializerRange: 0.2 },
    llmConfig: { ...llmConfig, architectures: [...llmConfig.architectures], maxPositionEmbeddings: 4096 },
  }
  const model = new EmoVerse({ model: InternVL.fromConfig(config, { seed: 3 }), tokenizer, system: null })
  const network = model.model as InternVL
  network.vision_model.freeze()
  using optimizer = new AdamW(
    [...network.parameters()].filter(({ requiresGrad }) => requiresGrad),
    { lr: 4e-3 },
  )
  const batch = emoverseCollate(await Promise.all(LESSONS.map((lesson) => model.encode(lesson))))
  network.train()
  for (let step = 0; step < steps; step++) {
    await scope(async () => {
      const { loss } = await emoverseLoss(model, batch)
      await loss.backward()
    })
    await optimizer.step()
    optimizer.zeroGrad()
  }
  network.eval()
  return model
}
