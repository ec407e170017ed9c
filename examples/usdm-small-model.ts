/** The language model of usdm-small.ts: units for it, its two trainings, and what it knows. */
import { join } from 'node:path'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'
import type { Phrase } from './usdm-small-data.js'

export interface UnitSettings {
  /** Layer of Whisper's encoder whose output becomes units. */
  layer: number
  /** Length of a window. Whisper's is 30 s, which would be mostly silence for short turns. */
  windowSeconds: number
  /** K */
  clusters: number
  /** Clips of each kind that the centroids are found by. */
  clips: number
  epochs: number
  seed: number
}

/** Label of positions without loss. */
const IGNORED = -100
/** Random numbers for `ustmSequence`: the form at the start of a segment, and whether the other follows. */
const [TEXT_FIRST, UNITS_FIRST, CORRESPONDS] = [0, 0.9, 0.9]

/** Frames of Whisper's encoder in a second. */
const FRAMES = 50

/** Writes `encoder`, the layers of Whisper's that are wanted, for windows of a few seconds and without positions, and `kmeans.npy`. */
export async function findUnits(
  whisper: string,
  out: string,
  clips: readonly string[],
  { layer, windowSeconds, clusters, epochs, seed }: UnitSettings,
): Promise<{ frames: number }> {
  const folder = join(out, 'encoder')
  using whole = await vt.WhisperEncoder.fromPretrained(whisper, { dtype: 'float32' })
  const maxSourcePositions = windowSeconds * FRAMES
  using encoder = vt.WhisperEncoder.fromConfig({ ...whole.config, encoderLayers: layer, maxSourcePositions }).eval()
  vt.scope(() => {
    const all = whole.stateDict()
    const own = Object.keys(encoder.stateDict()).map((name) => {
      const value = all[name] as vt.Tensor
      // Without positions: a centroid would else be a place in the window, whatever is said there.
      return [name, name === 'embed_positions.weight' ? vt.zeros([maxSourcePositions, value.size(1)]) : value]
    })
    encoder.loadStateDict(Object.fromEntries(own))
  })
  await encoder.save(folder)
  let frames = 0
  using bar = new vt.ProgressBar({ total: clips.length, label: 'frames', unit: 'clips' })
  using kmeans = await vt.fitUnits({
    ...{ encoder, layer, clips, clusters, epochs, seed },
    onClip: (heard) => {
      frames = heard.frames
      bar.tick()
    },
  })
  await kmeans.save(join(out, 'kmeans.npy'))
  return { frames }
}

export const openUnits = (out: string, layer: number): Promise<vt.UnitExtractor> =>
  vt.UnitExtractor.fromPretrained({ encoder: join(out, 'encoder'), kmeans: join(out, 'kmeans.npy'), layer })

/** The published language model with K + 3 rows more. */
async function published(llm: string, tokenizer: usdm.UsdmTokenizer, seed: number): Promise<vt.DecoderLM> {
  const model = await vt.DecoderLM.fromPretrained(llm, { dtype: 'float32', quantize: false })
  // Mistral's have a deviation of 0.02 as the new rows have; SmolLM2's own rows are louder, and new ones begin as loud.
  const std = vt.scope(() => model.stateDict()['model.embed_tokens.weight']!.std().item<number>())
  return model.resizeTokenEmbeddings(tokenizer.vocabSize, { seed, std })
}

/** Load the result of a training in OUT. */
export const trainedModel = (
  out: string,
  training: 'pretraining' | 'rehearsal' | 'main' | 'by-heart',
): Promise<vt.DecoderLM> => vt.DecoderLM.fromPretrained(join(out, training, 'model'), { dtype: 'float32' })

export interface TrainingSettings {
  recipe: Partial<usdm.UsdmRecipe>
  /** Epochs between two looks at what is known by heart. */
  checkEpochs: number
  /** Computes in bfloat16. */
  bf16: boolean
}

export interface PretrainingSettings {
  /** Repetitions of each phrase: units followed by text, and text followed by units. */
  rounds: { text: number; units: number }
  recipe: Partial<usdm.UsdmRecipe>
}

/**
 * Pre-train the language model on speech followed by text and text followed by speech, in USDM's sequences. Only the second form
 * contributes to the loss: otherwise most of the loss would be unit statistics, for which there are too few phrases. Writes
 * `pretraining/model`.
 */
export async function pretrain(
  llm: string,
  out: string,
  tokenizer: usdm.UsdmTokenizer,
  extractor: vt.UnitExtractor,
  { rounds, recipe, bf16 }: PretrainingSettings & Pick<TrainingSettings, 'bf16'>,
): Promise<{ phrases: number; steps: number; tokens: number }> {
  const phrases: Phrase[] = []
  for await (const phrase of vt.readJsonl(join(out, 'phrases.jsonl'))) phrases.push(phrase as Phrase)
  const folder = await vt.UnitFolder.open(join(out, 'units'), extractor)
  const nameOf = ({ wav }: Phrase) => wav.replace(/\.wav$/, '')
  const clips = phrases.map((phrase) => ({ name: nameOf(phrase), audio: join(out, phrase.wav) }))
  await folder.fill(extractor, clips, { progress: true })
  const random = new vt.Random(recipe.seed ?? 0, 7)
  const examples: usdm.UsdmExample[] = []
  for (let round = 0; round < Math.max(rounds.text, rounds.units); round += 1) {
    const told: usdm.UsdmExample[] = []
    for (const phrase of phrases) {
      const segment = { text: phrase.text, units: [...(await folder.read(nameOf(phrase)))] }
      if (round < rounds.text) told.push(secondForm(tokenizer, segment, 'text'))
      if (round < rounds.units) told.push(secondForm(tokenizer, segment, 'units'))
    }
    examples.push(...random.shuffle(told))
  }
  using model = await published(llm, tokenizer, recipe.seed ?? 0)
  const results = await usdm.finetuneUsdm({
    ...{ model, tokenizer, recipe, train: examples, outputDir: join(out, 'pretraining') },
    args: { reportTo: ['jsonl'], progress: false, bf16 },
    callbacks: [{ onLog: ({ logs }) => console.log(`pretraining, ${told(logs)}`) }],
  })
  const tokens = examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0)
  return { phrases: phrases.length, steps: results.globalStep, tokens }
}

/** Return a pre-training example with one form after the other; only the second contributes to the loss. */
function secondForm(
  tokenizer: usdm.UsdmTokenizer,
  segment: usdm.UstmSegment,
  target: 'text' | 'units',
): usdm.UsdmExample {
  // What is first, and that the other says the same, is what a sequence draws.
  const draws = [target === 'text' ? UNITS_FIRST : TEXT_FIRST, CORRESPONDS]
  const inputIds = usdm.ustmSequence(tokenizer, [segment], { float: () => draws.shift()! })
  const mark = inputIds.indexOf(tokenizer.ids.correspond)
  return { inputIds, labels: inputIds.map((id, i) => (i > mark ? id : IGNORED)) }
}

export interface RehearsalSettings {
  /** Number of dialogs, each of two unrelated phrases. */
  dialogs: number
  recipe: Partial<usdm.UsdmRecipe>
}

/**
 * Continue with the same phrases in the dialog template: one is transcribed, the other spoken. The pairs are random, so replies are
 * not learned. Writes `rehearsal/model`.
 */
export async function rehearse(
  out: string,
  tokenizer: usdm.UsdmTokenizer,
  extractor: vt.UnitExtractor,
  { dialogs, recipe, bf16 }: RehearsalSettings & Pick<TrainingSettings, 'bf16'>,
): Promise<{ dialogs: number; steps: number }> {
  const phrases: Phrase[] = []
  for await (const phrase of vt.readJsonl(join(out, 'phrases.jsonl'))) phrases.push(phrase as Phrase)
  const order = new vt.Random(recipe.seed ?? 0, 8).shuffle(phrases.filter(({ kind }) => kind !== 'word'))
  const folder = await vt.UnitFolder.open(join(out, 'units'), extractor)
  const said = async ({ text, wav }: Phrase) => ({ text, units: await folder.read(wav.replace(/\.wav$/, '')) })
  const examples: usdm.UsdmExample[] = []
  for (let i = 0; i + 1 < order.length && examples.length < dialogs; i += 2) {
    const turn = { user: await said(order[i]!), agent: await said(order[i + 1]!) }
    const { inputIds, labels } = usdm.usdmExample(tokenizer, [turn])
    const heard = labels.findIndex((label, at) => label === IGNORED && (labels[at - 1] ?? IGNORED) !== IGNORED)
    const spoken = inputIds.lastIndexOf(tokenizer.ids.correspond)
    examples.push({ inputIds, labels: labels.map((label, at) => (at >= heard && at <= spoken ? IGNORED : label)) })
  }
  using model = await trainedModel(out, 'pretraining')
  const results = await usdm.finetuneUsdm({
    ...{ model, tokenizer, recipe, train: examples, outputDir: join(out, 'rehearsal') },
    args: { reportTo: ['jsonl'], progress: false, bf16 },
    callbacks: [{ onLog: ({ logs }) => console.log(`rehearsal, ${told(logs)}`) }],
  })
  return { dialogs: examples.length, steps: results.globalStep }
}

/** Goes on from there: fine-tunes it on `train.txt`; it is in `main/model` then. */
export async function trainMain(
  out: string,
  tokenizer: usdm.UsdmTokenizer,
  { recipe, bf16 }: TrainingSettings,
): Promise<{ steps: number; examples: number; loss: number | null }> {
  using model = await trainedModel(out, 'rehearsal')
  const results = await usdm.finetuneUsdm({
    ...{ model, tokenizer, recipe, outputDir: join(out, 'main') },
    ...{ train: join(out, 'train.txt'), valid: join(out, 'valid.txt') },
    args: { reportTo: ['jsonl'], progress: false, bf16 },
    callbacks: [{ onLog: ({ logs }) => console.log(`main, ${told(logs)}`) }],
  })
  return { steps: results.globalStep, examples: results.samples.train, loss: results.valid?.loss ?? null }
}

/** Continue on `by-heart.txt` until every token of every pass is the argmax. */
export async function learnByHeart(
  out: string,
  tokenizer: usdm.UsdmTokenizer,
  { recipe, checkEpochs, bf16 }: TrainingSettings,
): Promise<{ steps: number }> {
  const examples: usdm.UsdmExample[] = []
  for await (const example of usdm.readUsdmExamples(join(out, 'by-heart.txt'))) examples.push(example)
  using model = await trainedModel(out, 'main')
  let epoch = 0
  const results = await usdm.finetuneUsdm({
    ...{ model, tokenizer, recipe, train: examples, outputDir: join(out, 'by-heart') },
    args: { reportTo: ['jsonl'], progress: false, bf16 },
    callbacks: [
      { onLog: ({ logs }) => console.log(`by heart, ${told(logs)}`) },
      {
        async onEpochEnd({ control, state }) {
          epoch = Math.round(state.epoch)
          if (epoch % checkEpochs !== 0) return
          const known = await knownTokens(model, examples)
          console.log(
            `by heart, epoch ${epoch}: ${known.examples} of ${examples.length} known, ${known.wrong} tokens not`,
          )
          if (known.examples === examples.length) control.shouldStop = true
        },
      },
    ],
  })
  return { steps: results.globalStep }
}

/** Count examples whose tokens are all the argmax, and tokens that are not. */
async function knownTokens(
  model: vt.DecoderLM,
  examples: readonly usdm.UsdmExample[],
): Promise<{ examples: number; wrong: number }> {
  const wasTraining = model.training
  model.eval()
  try {
    let [known, wrong] = [0, 0]
    for (const { inputIds, labels } of examples) {
      const likeliest = await vt.noGrad(() =>
        vt.scope(async () => {
          const { logits } = await model.forward({
            inputIds: vt.tensor([inputIds], { dtype: 'int64' }),
            logitsToKeep: 0,
          })
          return Array.from((await logits!.select(0, 0).argmax(-1).data()) as BigInt64Array, Number)
        }),
      )
      const missed = labels.filter((label, i) => label !== IGNORED && label !== likeliest[i - 1]).length
      wrong += missed
      known += missed === 0 ? 1 : 0
    }
    return { examples: known, wrong }
  } finally {
    model.train(wasTraining)
  }
}

export interface ByHeart {
  dialogs: number
  transcripts: number
  replies: number
  units: number
  /** All three of a dialog. */
  whole: number
}

/** Run all three passes on the memorized dialogs. */
export async function recite(out: string, model: usdm.Usdm): Promise<ByHeart> {
  const { dialogs } = await usdm.readUsdmJsonl(join(out, 'by-heart.jsonl'))
  const folder = await vt.UnitFolder.open(join(out, 'units'), model.units)
  const found: ByHeart = { dialogs: dialogs.length, transcripts: 0, replies: 0, units: 0, whole: 0 }
  for (const { turns } of dialogs) {
    const [user, agent] = turns as [usdm.UsdmSpokenTurn, usdm.UsdmSpokenTurn]
    const [asked, answered] = [await folder.read(user.clip), await folder.read(agent.clip)]
    const most = { maxTextTokens: 64, maxUnits: 2 * answered.length }
    const reply = await model.respond({ units: asked }, { audio: false, strict: true, ...most })
    const right = {
      transcripts: reply.transcript === user.text.toLowerCase(),
      replies: reply.text === agent.text.toLowerCase(),
      units: reply.units.join() === answered.join(),
    }
    for (const name of ['transcripts', 'replies', 'units'] as const) found[name] += right[name] ? 1 : 0
    found.whole += right.transcripts && right.replies && right.units ? 1 : 0
  }
  return found
}

export interface Listening {
  samples: number
  /** Mean loss of a token of the transcript: with the user's units, and with those of another turn. */
  transcript: number
  transcriptOfOthers: number
  /** Loss per unit of the reply: after the reply's text, and after another's. */
  units: number
  unitsOfOthers: number
}

/** Whether what stands before makes a difference: losses on held-out dialogs as they are, and with parts exchanged. */
export async function listening(
  out: string,
  model: vt.DecoderLM,
  tokenizer: usdm.UsdmTokenizer,
  extractor: vt.UnitExtractor,
  samples: number,
): Promise<Listening> {
  const { dialogs } = await usdm.readUsdmJsonl(join(out, 'test.jsonl'))
  const folder = await vt.UnitFolder.open(join(out, 'units'), extractor)
  const turns: usdm.UsdmTurn[] = []
  for (const { turns: said } of dialogs.slice(0, samples)) {
    const [user, agent] = await Promise.all(
      said.map(async ({ text, clip }) => ({ text, units: await folder.read(clip) })),
    )
    turns.push({ user: user!, agent: agent! })
  }
  // Of someone who says something else.
  const another = (who: 'user' | 'agent', i: number): usdm.UsdmUtterance => {
    for (let step = 1; step < turns.length; step += 1) {
      const one = turns[(i + step) % turns.length]![who]
      if (one.text !== turns[i]![who].text) return one
    }
    throw new Error('all turns say the same')
  }
  const losses = (list: readonly usdm.UsdmTurn[]) =>
    usdm.usdmLosses(
      model,
      tokenizer,
      list.map((turn) => usdm.usdmExample(tokenizer, [turn])),
      { batchSize: 8 },
    )
  const right = await losses(turns)
  const deaf = await losses(
    turns.map((turn, i) => ({ ...turn, user: { ...turn.user, units: another('user', i).units } })),
  )
  const unread = await losses(
    turns.map((turn, i) => ({ ...turn, agent: { ...turn.agent, text: another('agent', i).text } })),
  )
  return {
    samples: turns.length,
    ...{ transcript: right.transcript!, transcriptOfOthers: deaf.transcript! },
    ...{ units: right.speech!, unitsOfOthers: unread.speech! },
  }
}

/** Answers held-out questions, and has Whisper hear the answers. */
export async function converse(
  out: string,
  model: usdm.Usdm,
  whisper: string,
  { replies, maxUnits }: { replies: number; maxUnits: number },
): Promise<usdm.ScoredUsdm> {
  const dialogs = await usdm.readUsdmJsonl(join(out, 'test.jsonl'))
  const options = { strict: true, maxTextTokens: 32, maxUnits, steps: 16, seed: 0 } as const
  const answering = {
    respond: (wav: string) =>
      model.respond(wav, options).catch((error: Error & { transcript?: string; text?: string }) => {
        const { transcript, text } = error
        // A reply without units cannot be heard, and is scored without.
        if (transcript === undefined || text === undefined) throw error
        return { transcript, text, wav: null }
      }),
  }
  using bar = new vt.ProgressBar({ total: replies, label: 'replies', unit: 'replies' })
  const output = join(out, 'predictions.jsonl')
  const predictions = await usdm.predictUsdm(answering, dialogs, { output, limit: replies, onReply: () => bar.tick() })
  using judge = await vt.Whisper.fromPretrained(whisper, { dtype: 'float32' })
  return await usdm.scoreUsdm(predictions, { judge })
}

function told({ step, loss, evalLoss }: Record<string, unknown>): string {
  const value = (evalLoss ?? loss) as number | undefined
  return `step ${step}: ${evalLoss === undefined ? 'loss' : 'validation loss'} ${value?.toFixed(4)}`
}
