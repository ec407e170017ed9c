import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { flagOf } from '../../../kit/options.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { model, modelCacheDir, encoder, kmeans, layer, device } = USDM_OPTIONS

export const respond = commandRule({
  name: 'respond',
  summary: 'Answers a spoken question: what was heard, the reply, and the reply as sound.',
  details: `  voxtorch usdm respond question.wav --model-cache-dir CACHE --reference voice.wav --output answer.wav
  voxtorch usdm respond question.wav --model runs/usdm --text-only
  voxtorch usdm respond question.wav --model runs/llm --encoder whisper-base --kmeans 500.npy --layer 4 --save runs/usdm

Several questions are turns of one conversation; each is answered before the next is heard, and the last answer is written. --model is a folder
that --save or Usdm.save wrote, or a fine-tuned language model whose other parts are named here or are in the model cache. As published, the
likeliest token is taken each time; --strict keeps the model from what it should not say.`,
  files: 'QUESTION.wav ...',
  options: {
    input: { kind: 'text', help: 'the question, as the original has it', value: 'file', aliases: ['input_path'] },
    output: { kind: 'text', help: 'the WAV file to write', value: 'file', aliases: ['output_path'] },
    reference: {
      kind: 'text',
      help: 'a clip in whose voice it answers',
      value: 'file',
      aliases: ['reference_path'],
    },
    model: { ...model, preset: 'naver-ai/USDM-DailyTalk', aliases: ['llm'] },
    adapter: { kind: 'text', help: 'what fine-tuning with --lora left, for --model as it was before', value: 'dir' },
    ...{ modelCacheDir, encoder, kmeans, layer },
    voicebox: {
      kind: 'text',
      help: 'of the same units: a folder or a repository',
      value: 'dir',
      preset: 'naver-ai/xlsr-token-Voicebox',
    },
    vocoder: {
      kind: 'text',
      help: 'BigVGAN: a folder, a file or a repository; or griffin-lim, which needs no weights',
      value: 'dir',
      preset: 'nvidia/bigvgan_22khz_80band',
    },
    textOnly: { kind: 'flag', help: 'loads no Voicebox and vocoder, and writes no sound' },
    strict: { kind: 'flag', help: 'no padding, no <|continue|>, no line breaks in the reply' },
    temperature: { kind: 'number', help: '0 takes the likeliest token', preset: 0 },
    topP: { kind: 'number', help: 'the fewest tokens that hold so much probability', preset: 1 },
    topK: { kind: 'whole', help: 'only so many of the likeliest tokens; 0 for all', preset: 0 },
    maxUnits: { kind: 'whole', help: 'of the reply, 50 a second', preset: 'what there is room for' },
    solverSteps: { kind: 'whole', help: 'evaluations of the Voicebox', preset: 50 },
    seed: { kind: 'whole', help: 'of tokens and of the noise that speech is made of', preset: 'another each time' },
    device,
    dtype: { kind: 'text', help: 'of the language model', value: 'name', preset: 'bfloat16 of a repository' },
    offload: { kind: 'flag', help: 'each part is on the device only while it works' },
    save: { kind: 'text', help: 'writes all parts into a folder, for voxtorch serve usdm', value: 'dir' },
    json: { kind: 'flag', help: 'each answer is a line of JSON, units included' },
  },
  async run(given, files) {
    const questions = given.input === undefined ? files : [given.input, ...files]
    const {
      output,
      save,
      json = false,
      textOnly = false,
      reference,
      solverSteps: steps,
      maxUnits,
      seed,
      strict,
    } = given
    if (questions.length === 0 && save === undefined) {
      throw new ConfigError('Say what was asked: voxtorch usdm respond QUESTION.wav', { argument: 'input' })
    }
    const { voicebox, vocoder } = given
    for (const [argument, value] of Object.entries({ output, reference, solverSteps: steps, voicebox, vocoder })) {
      if (value === undefined) continue
      if (textOnly) {
        throw new ConfigError(`${flagOf(argument)} is for answers with sound, and not for --text-only`, { argument })
      }
      if (output === undefined && (argument === 'reference' || argument === 'solverSteps')) {
        throw new ConfigError(`${flagOf(argument)} is for an answer with sound, which --output FILE asks for`, { argument }) // biome-ignore format: one line
      }
    }
    const { usdmOfArguments } = await import('../configuration/apply.js')
    using usdm = await usdmOfArguments(given)
    if (save !== undefined) await usdm.save(save)
    const audio = usdm.speaks && !textOnly
    if (output !== undefined && !audio) {
      throw new ConfigError('There is no Voicebox or no vocoder to make sound with: --text-only', {
        argument: 'output',
      })
    }
    const { UsdmCache } = await import('../network/cache.js')
    using cache = new UsdmCache()
    using voice = reference === undefined ? undefined : await usdm.voice(reference)
    const history = []
    for (const [i, question] of questions.entries()) {
      const isLast = i === questions.length - 1
      const reply = await usdm.respond(question, {
        ...{ history, cache, audio: audio && isLast && output !== undefined },
        sampling: defined({ temperature: given.temperature, topP: given.topP, topK: given.topK }),
        ...(audio && isLast && output !== undefined && defined({ reference: voice, steps })),
        ...defined({ maxUnits, seed, strict }),
      })
      history.push(reply.turn)
      const { transcript, text, units, finish, wav } = reply
      if (json) console.log(JSON.stringify({ question, transcript, text, units, finish, output: wav ? output : null }))
      else console.log(`${question}\n  heard: ${transcript}\n  reply: ${text} (${(units.length / 50).toFixed(1)} s)`)
      if (!wav || output === undefined) continue
      const { writeWav } = await import('../../../audio/write.js')
      const { tensor } = await import('../../../tensor/index.js')
      using samples = tensor(wav.samples, { device: 'cpu' })
      await writeWav(output, samples, { sampleRate: wav.sampleRate, format: 'float32' })
      if (!json) console.log(`  ${output}`)
    }
    return 0
  },
})
