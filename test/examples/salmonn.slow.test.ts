import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as vt from 'voxtorch'
import * as sl from 'voxtorch/salmonn'
import { fixturePath } from '../helpers.js'
import { at, clips, dialogs, env, json, lines, node, prepare, root, run, salmonn, voxtorch, write } from './salmonn.js'

prepare()

describe('voxtorch salmonn convert', () => {
  it('makes training, validation and test data that share no sound', async () => {
    const ran = await voxtorch(
      'salmonn',
      'convert',
      at('challenge.jsonl'),
      at('split.json'),
      '--valid',
      '0.25',
      '--test=0.25',
    )
    expect(ran).toEqual({
      code: 0,
      out: `${at('split.json')}: 4 dialogs\n${at('split.valid.json')}: 2 dialogs\n${at('split.test.json')}: 2 dialogs\n`,
      err: '',
    })
    const parts = ['split.json', 'split.valid.json', 'split.test.json'].map(
      (name) => json(name) as sl.ConvertedDialog[],
    )
    const files = parts.map((part) => new Set(part.flatMap(({ audio_files }) => audio_files)))
    expect(files.reduce((sum, { size }) => sum + size, 0)).toBe(clips.length)
    expect(parts.flatMap((part) => part.map(({ dialogue_id }) => dialogue_id)).sort()).toEqual(
      dialogs.map(({ dialogue_id }) => dialogue_id),
    )
    expect(parts.flat().find(({ dialogue_id }) => dialogue_id === 'en_3')).toEqual({
      dialogue_id: 'en_3',
      task: 'task1_emotional_trajectory',
      input_text: expect.stringContaining('over these three turns.'),
      target_text: 'so it is',
      audio_files: ['wav/3_0.wav', 'wav/3_1.wav', 'wav/3_2.wav'],
      emotion_sequence: ['anger', 'neutral', 'happy'],
    })
    const again = await voxtorch('salmonn-convert', at('challenge.jsonl'), at('again.json'))
    expect(again.out).toBe(`${at('again.json')}: 8 dialogs\n`)
  })

  it('names a broken line, or counts it, and says where sound is not', async () => {
    const input = write('broken.jsonl', `${JSON.stringify(dialogs[2])}\n\n{"turns": []}\n`)
    const stopped = await voxtorch('salmonn', 'convert', input, at('none.json'))
    expect(stopped).toMatchObject({
      code: 1,
      out: '',
      err: `voxtorch: ${input}, line 3: expected a non-empty list of turns, got an array of length 0.\n`,
    })
    expect(existsSync(at('none.json'))).toBe(false)
    mkdirSync(at('elsewhere'))
    const skipped = await voxtorch('salmonn', 'convert', input, at('elsewhere/some.json'), '--skip-bad')
    expect(skipped.out).toBe(
      `${at('elsewhere/some.json')}: 1 dialog\n1 left out; the first: ${input}, line 3: expected a non-empty list of turns, got an array of length 0.\n2 audio files do not exist relative to the new file, such as ${at('elsewhere/wav/2_0.wav')}: set data.audioRoot to their base folder\n`,
    )
    const wrong: [string[], RegExp][] = [
      [['in.jsonl'], /expected IN\.jsonl and OUT\.json/],
      [['a.json', 'a.json'], /expected an output file that is not an input, got a\.json/],
      [['in.jsonl', 'out.json', '--valid', '1'], /--valid: expected a fraction in \[0, 1\), got "1"/],
      [['in.jsonl', 'out.json', '--style', 'x'], /--style: expected labeled or plain, got "x"/],
    ]
    for (const [args, message] of wrong) {
      const ran = await voxtorch('salmonn', 'convert', ...args)
      expect(ran.code).toBe(1)
      expect(ran.err).toMatch(message)
    }
  })
})

const ours = (more = '') =>
  write(
    'ours.yaml',
    `
data:
  train: ${at('whole.json')}
  emotionSuffix: en
  gapSeconds: 0.5
  validShare: 0.25
training:
  stage: 1
  learningRate: 0.01
  warmupSteps: 2
  epochs: 4
  iterationsPerEpoch: data
  batchSize: 3
  arguments: { progress: false, reportTo: none }
generation: { maxNewTokens: 4, numBeams: 1 }
${more}`,
  )

describe('voxtorch salmonn train', () => {
  const train = (output: string, ...rest: string[]) =>
    salmonn('train', '--config', ours(), '--model', at('tiny'), '--output', at(output), ...rest) // biome-ignore format: one line

  it('goes on after a kill to the same weights, on data that share clips', async () => {
    const whole = await node(train('whole'))
    expect(whole.code, whole.err).toBe(0)
    expect(whole.out).toContain(
      'There is no validation file: 2 items of whole dialogs are split off from training for it',
    )
    const results = json('whole', 'results.json')
    expect(results).toMatchObject({ globalStep: 8, samples: { train: 6, valid: 2, test: 0 }, cut: { count: 0 } })
    expect(Object.keys(results.valid.answers)).toContain('uar')

    const child = spawn(process.execPath, train('part'), { cwd: root, env, stdio: 'ignore' })
    const gone = new Promise((resolve) => child.once('exit', resolve))
    const saved = () => existsSync(at('part')) && readdirSync(at('part')).some((name) => /^checkpoint-[24]$/.test(name))
    while (!saved() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5))
    child.kill('SIGKILL')
    await gone
    expect(existsSync(at('part/results.json'))).toBe(false)
    const resumed = await node(train('part'))
    expect(resumed.code, resumed.err).toBe(0)
    expect(json('part', 'results.json')).toEqual(results)
    const weights = (name: string) => readFileSync(at(name, 'model/adapter.safetensors'))
    expect(weights('part').equals(weights('whole'))).toBe(true)

    // Who asks the model afterwards hears as it was trained.
    expect(json('whole', 'model/data.json')).toEqual({ data: { emotionSuffix: 'en', gapSeconds: 0.5 }, training: {} })
    const spoken = ['2_0', '2_1'].map((name) => `ann=${at('wav', `${name}.wav`)}`)
    const [asTrained, said, other] = await Promise.all(
      [[], ['--options', 'data.gapSeconds=0.5'], ['--options', 'data.gapSeconds=3']].map(async (more) => {
        const options = [...more, '--options', 'generation.maxNewTokens=8', '--options', 'generation.numBeams=1']
        return (await run('trajectory', '--model', at('whole/model'), '--dtype', 'float32', ...spoken, ...options)).out
      }),
    )
    expect(asTrained).toBe(said)
    expect(asTrained).not.toBe(other)
  })

  it('reads the published configuration, and trains the second stage on the first', async () => {
    const part = (name: string) => fixturePath(`models/salmonn-published/${name}`)
    const config = write(
      'published.yaml',
      `
model:
  llama_path: "${part('vicuna')}"
  whisper_path: "${part('whisper')}"
  freeze_whisper: True
  beats_path: "${part('beats.pt')}"
  freeze_beats: True
  use_speech_Qformer: True
  freeze_speech_QFormer: False
  window_level_Qformer: True
  num_speech_query_token: 1
  second_per_window: 0.333333
  second_stride: 0.333333
  freeze_speech_llama_proj: False
  lora: True
  lora_rank: 8
  lora_alpha: 32
  lora_dropout: 0.1
  multi_prompt: True
  prompt_template: "USER: {}\\nASSISTANT:"
  max_txt_len: 512
  end_sym: "</s>"
  ckpt: "${part('salmonn_v1.pth')}"
datasets:
  train_ann_path: "${at('whole.json')}"
  valid_ann_path: "${at('whole.json')}"
  test_ann_path: "${at('whole.json')}"
  whisper_path: "${part('whisper')}"
run:
  seed: 7
  output_dir: "${at('unused')}"
  evaluate: False
  log_freq: 5
  epoch_based: False
  iters_per_epoch: 3
  accum_grad_iters: 1
  batch_size_train: 2
  batch_size_eval: 2
  num_workers: 8
  device: "cpu"
  use_distributed: False
  amp: True
  optims: { max_epoch: 1, warmup_steps: 2, warmup_start_lr: 1e-4, init_lr: 1e-2, min_lr: 1e-3, weight_decay: 0.05 }
generate: { max_new_tokens: 4, num_beams: 1, do_sample: False }
`,
    )
    const first = await run('train', '--cfg-path', config, '--stage', '1', '--output', at('stage-1'))
    expect(first.err).toContain('run.num_workers has no effect: audio is read by native threads')
    expect(first.out).toContain(
      'The test file is the training file: 1 items of whole dialogs are split off from training for it',
    )
    expect(json('stage-1', 'results.json')).toMatchObject({ globalStep: 3, samples: { train: 6, valid: 1, test: 1 } })
    await run(
      'train',
      ...['--cfg-path', config, '--stage', '2', '--model', at('stage-1/model'), '--output', at('stage-2')],
      ...['--options', 'run.optims.max_epoch=2', 'run.seed=8'],
    )
    expect(json('stage-2', 'results.json')).toMatchObject({ globalStep: 6 })
    await vt.scope(async () => {
      const of = async (name: string) => (await vt.loadSafetensors(at(name, 'model/adapter.safetensors'))).tensors
      const [before, published, after] = [
        await of('stage-1'),
        ((await vt.loadTorch(part('salmonn_v1.pth'))) as { model: Record<string, vt.Tensor> }).model,
        await of('stage-2'),
      ]
      const changed = (a: Record<string, vt.Tensor>, b: Record<string, vt.Tensor>, like: RegExp) => {
        const names = Object.keys(a).filter((name) => like.test(name))
        expect(names.length).toBeGreaterThan(1)
        const same = (name: string) => (a[name] as vt.Tensor).equal((b[name] ?? a[name]) as vt.Tensor)
        return names.filter((name) => !same(name)).length / names.length
      }
      expect(changed(before, published, /lora_/)).toBe(0)
      expect(changed(before, published, /speech_llama_proj/)).toBe(1)
      expect(changed(before, after, /lora_/)).toBe(1)
      expect(changed(before, after, /speech_llama_proj/)).toBe(1)
    })
    const measured = await run(
      'train',
      ...['--cfg-path', config, '--model', at('stage-2/model'), '--output', at('stage-2')],
      ...['--options', 'run.evaluate=True', 'run.seed=8'],
    )
    const { loss, accuracy, scores } = JSON.parse(measured.out.slice(measured.out.indexOf('{')))
    const { test } = json('stage-2', 'results.json')
    expect({ accuracy, answers: scores }).toEqual({ accuracy: test.accuracy, answers: test.answers })
    expect(loss).toBeCloseTo(test.loss, 5)
  })

  it('measures and does not train', async () => {
    const config = ours()
    const options = ['--options', 'training.evaluateOnly=true', `data.test=${at('made.test.json')}`]
    const before = readFileSync(at('tiny/adapter.safetensors'))
    const { out } = await run('train', '--config', config, '--model', at('tiny'), '--output', at('measured'), ...options) // biome-ignore format: one line
    const measured = JSON.parse(out)
    expect(Object.keys(measured)).toEqual(['scores', 'loss', 'accuracy'])
    expect(measured.scores).toMatchObject({ pairs: 2, withEmotions: 2, parsed: 0 })
    expect(measured.loss).toBeGreaterThan(1)
    expect(readdirSync(at('measured'))).toEqual(['answers.jsonl'])
    const answers = lines('measured', 'answers.jsonl')
    expect(answers.map(({ id }) => id)).toEqual((json('made.test.json') as sl.ConvertedDialog[]).map((one) => one.dialogue_id)) // biome-ignore format: one line
    expect(readFileSync(at('tiny/adapter.safetensors')).equals(before)).toBe(true)
    const scored = await run('score', '--references', at('made.test.json'), '--predictions', at('measured/answers.jsonl'), '--json', at('measured.json')) // biome-ignore format: one line
    expect(scored.out).toMatch(/^dialogs +2\nwith emotions +0\.0000\n/)
    expect(json('measured.json')).toEqual({ ...measured.scores, unanswered: [] })
  })
})

describe('salmonn-chat.ts', () => {
  it('answers as it writes, keeps what was said, and goes on after a wrong path', async () => {
    write('list.txt', `${at('wav/2_0.wav')}\n${at('wav/2_1.wav')}\n`)
    write('broken.wav', 'no sound')
    const typed = [
      `${at('wav/both.wav')} What is it?`,
      'And how?',
      `${at('wav/gone.wav')} Hello?`,
      `${at('broken.wav')}`,
      `@${at('list.txt')} Both?`,
      '/new',
      `${at('wav/both.wav')} What is it?`,
      `${at('wav/2_0.wav')},${at('wav/2_1.wav')} "${at('wav/3_0.wav')}" All?`,
      '/quit',
      'never asked',
    ].join('\n')
    const chat = salmonn('chat', '--model', at('tiny'))
    const ran = await node([...chat, '--json'], typed)
    const said = ran.out.trim().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line
    expect(ran.err).toBe('')
    // A line that was not answered.
    expect(ran.code).toBe(1)
    expect(said.map(({ audio, prompt, error }) => error ?? [audio.length, prompt])).toEqual([
      [1, 'What is it?'],
      [0, 'And how?'],
      `parseChatLine: expected an existing audio file, got ${at('wav/gone.wav')}.`,
      expect.stringContaining('broken.wav'),
      [2, 'Both?'],
      [1, 'What is it?'],
      [3, 'All?'],
    ])
    expect(said[5].answer).toBe(said[0].answer)
    expect(said[0].answer.length).toBeGreaterThan(0)

    const model = await vt.Salmonn.fromPretrained(at('tiny'), { dtype: 'float32' })
    const samples = await vt.scope(async () => {
      const { samples: read } = await vt.readAudio(at('wav/both.wav'), { sampleRate: 16_000 })
      return Float32Array.from(read.toArray() as number[])
    })
    const first: sl.SalmonnChatMessage[] = [{ role: 'user', content: [{ type: 'audio', samples }, { type: 'text', text: 'What is it?' }] }] // biome-ignore format: one line
    const second: sl.SalmonnChatMessage[] = [...first, { role: 'assistant', content: [{ type: 'text', text: said[0].answer }] }, { role: 'user', content: [{ type: 'text', text: 'And how?' }] }] // biome-ignore format: one line
    const prompts = [first, second].map((messages) => sl.salmonnChatPrompt(messages, { endOfTurn: '</s>' }))
    for (const [i, prompt] of prompts.entries()) {
      const { texts } = await vt.noGrad(() => model.generate([prompt], { maxNewTokens: 200 }))
      expect(said[i].answer).toBe(texts[0])
    }
    model.dispose()

    const shown = await node(chat, `${at('wav/both.wav')} What is it?\n${at('wav/gone.wav')}\n`)
    expect(shown.out).toBe(
      `> ${said[0].answer}\n> parseChatLine: expected an existing audio file, got ${at('wav/gone.wav')}.\n> `,
    )
  })

  it('says what is missing', async () => {
    expect((await node(salmonn('chat'))).err).toContain('--model: expected a model, got none')
  })
})
