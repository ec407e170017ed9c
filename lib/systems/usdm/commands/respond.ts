import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { flagOf } from '../../../kit/options.js'
import { USDM_ANSWER_OPTIONS } from '../configuration/arguments.js'
import { ANSWER_SETTINGS, SAMPLING_SETTINGS } from '../configuration/settings.js'

export const respond = commandRule({
  name: 'respond',
  summary: 'Reply to a spoken question: transcript, text and speech.',
  details: `  voxtorch usdm respond question.wav --model-cache-dir CACHE --reference voice.wav --output answer.wav
  voxtorch usdm respond question.wav --model runs/usdm --text-only
  voxtorch usdm respond question.wav --model runs/llm --encoder whisper-base --kmeans 500.npy --layer 4 --save runs/usdm

Several questions are the turns of one conversation; --output receives the last reply. --model is a folder that --save or Usdm.save
wrote, or a fine-tuned language model. In the second case the other parts come from the options and the model cache. Decoding is
greedy by default, as published.`,
  files: 'QUESTION.wav ...',
  options: {
    input: {
      type: 'string',
      help: "the question; the original's name of QUESTION.wav",
      placeholder: 'file',
      aliases: ['input_path'],
    },
    output: { type: 'string', help: 'WAV file to write', placeholder: 'file', aliases: ['output_path'] },
    reference: {
      type: 'string',
      help: 'clip of the voice to reply in',
      placeholder: 'file',
      aliases: ['reference_path'],
    },
    ...USDM_ANSWER_OPTIONS,
    save: { type: 'string', help: 'folder to save all parts to, for voxtorch serve usdm', placeholder: 'dir' },
    json: { type: 'boolean', help: 'print each reply as a line of JSON, units included' },
  },
  async run(args, files) {
    const questions = args.input === undefined ? files : [args.input, ...files]
    const { output, save, json = false, textOnly = false, reference, solverSteps: steps } = args
    if (questions.length === 0 && save === undefined) {
      throw new ConfigError(
        'respond: expected an audio file of the question, got none. Run voxtorch usdm respond QUESTION.wav.',
        { argument: 'input' },
      )
    }
    const { voicebox, vocoder } = args
    for (const [argument, value] of Object.entries({ output, reference, solverSteps: steps, voicebox, vocoder })) {
      if (value === undefined) continue
      if (textOnly) {
        throw new ConfigError(
          `${flagOf(argument)}: expected with audio output, got --text-only. Leave out one of the two.`,
          { argument },
        )
      }
      if (output === undefined && (argument === 'reference' || argument === 'solverSteps')) {
        throw new ConfigError(`${flagOf(argument)}: expected with audio output, got no --output. Add --output FILE.`, {
          argument,
        })
      }
    }
    const { usdmOfArguments } = await import('../configuration/apply.js')
    using usdm = await usdmOfArguments(args)
    if (save !== undefined) await usdm.save(save)
    const audio = usdm.speaks && !textOnly
    if (output !== undefined && !audio) {
      throw new ConfigError(
        '--output: expected a model with a Voicebox and a vocoder, got one without. Leave out --output, or add --voicebox and --vocoder.',
        { argument: 'output' },
      )
    }
    const { UsdmCache } = await import('../network/cache.js')
    using cache = new UsdmCache()
    using voice = reference === undefined ? undefined : await usdm.voice(reference)
    const { steps: _, ...answering } = ANSWER_SETTINGS.fromOptions(args)
    const history = []
    for (const [i, question] of questions.entries()) {
      const isLast = i === questions.length - 1
      const reply = await usdm.respond(question, {
        ...{ ...answering, history, cache, audio: audio && isLast && output !== undefined },
        sampling: SAMPLING_SETTINGS.fromOptions(args),
        ...(audio && isLast && output !== undefined && defined({ reference: voice, steps })),
      })
      history.push(reply.turn)
      const { transcript, text, units, finish, wav } = reply
      if (json) console.log(JSON.stringify({ question, transcript, text, units, finish, output: wav ? output : null }))
      else console.log(`${question}\n  heard: ${transcript}\n  reply: ${text} (${(units.length / 50).toFixed(1)} s)`)
      if (!wav || output === undefined) continue
      const { writeWav } = await import('../../../audio/write.js')
      const { scope, tensor } = await import('../../../tensor/index.js')
      const format = { sampleRate: wav.sampleRate, format: 'float32' } as const
      await scope(() => writeWav(output, tensor(wav.samples, { device: 'cpu' }), format))
      if (!json) console.log(`  ${output}`)
    }
    return 0
  },
})
