/** Write the results of usdm-small.ts as a page that needs no network. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as vt from 'voxtorch'
import type * as usdm from 'voxtorch/usdm'
import type { ByHeart, Listening } from './usdm-small-model.js'
import type { MelError, Resaid } from './usdm-small-voice.js'

export interface Figures {
  hours: { synthetic: number; real: number }
  pairs: Record<string, number>
  steps: { pretraining: number; rehearsal: number; main: number; byHeart: number; voicebox: number }
  byHeart: ByHeart
  listening: Listening
  scores: usdm.UsdmScores
  mel: MelError
}

const share = (part: number, whole: number) => `${((100 * part) / whole).toFixed(1)} %`
const less = (own: number, other: number) =>
  `${own.toFixed(3)} against ${other.toFixed(3)}: ${share(other - own, other)} less`
const rate = (value: number | null) => (value === null ? '–' : share(value, 1))

export async function reportOf(
  out: string,
  figures: Figures,
  predictions: readonly usdm.UsdmPrediction[],
  resaid: readonly Resaid[],
): Promise<string> {
  const { hours, pairs, steps, byHeart, listening, scores, mel } = figures
  const rows: [string, string][] = [
    ['Speech of two synthetic voices (espeak-ng), texts of DailyTalk', `${hours.synthetic.toFixed(2)} hours, ${pairs.train} pairs of turns to learn from, ${pairs.test} held out`],
    ['Speech of two actors, Czech and Dutch (Fish Fillets), for the Voicebox', `${hours.real.toFixed(2)} hours`],
    ['Steps: pre-training, rehearsal, fine-tuning, by heart, Voicebox', `${steps.pretraining}, ${steps.rehearsal}, ${steps.main}, ${steps.byHeart}, ${steps.voicebox}`],
    ['Known by heart, all three passes', `${byHeart.whole} of ${byHeart.dialogs} (transcripts ${byHeart.transcripts}, replies ${byHeart.replies}, units ${byHeart.units})`],
    ["Loss of a transcript's token, with its units against another turn's", less(listening.transcript, listening.transcriptOfOthers)],
    ["Loss per reply unit, after its text against another's", less(listening.units, listening.unitsOfOthers)],
    ['Word errors of transcripts (STT)', `${rate(scores.sttWer)} of ${scores.sttSamples}`],
    ['Word errors that Whisper base hears in spoken replies (TTS)', `${rate(scores.ttsWer)} of ${scores.ttsSamples}`],
    ['ROUGE-L of replies, F1', `${scores.rougeL?.toFixed(3) ?? '–'} of ${scores.replySamples}`],
    [`METEOR of replies (${scores.meteorVariant})`, `${scores.meteor?.toFixed(3) ?? '–'} of ${scores.replySamples}`],
    ['Error of the mel spectrogram, of its units against the same shuffled, means of some that are drawn', less(mel.units, mel.shuffled)],
    ['The same of one that is drawn', less(mel.unitsDrawn, mel.shuffledDrawn)],
  ] // biome-ignore format: a row is a line
  const sounds = resaid.map(
    ({ name, recorded, made, shuffled }) =>
      `<article><h3>${escaped(name)}</h3>${[
        ['as recorded, through the same vocoder', recorded],
        ['its beginning, then made of its units', made],
        ['its beginning, then made of them shuffled', shuffled],
      ]
        .map(([what, samples]) => figure(what as string, samples as Float32Array, 22_050))
        .join('')}</article>`,
  )
  const replies: string[] = []
  for (const { id, user, agent, transcript, reply, wav, heard } of predictions.slice(0, 12)) {
    const said = await audioOf(out, wav)
    replies.push(
      `<article><h3>${escaped(id)}</h3>${said ? figure('the spoken reply', said.samples, said.sampleRate) : ''}<dl>${[
        ['said', user],
        ['heard', transcript],
        ['right reply', agent],
        ['reply', reply],
        ['heard in it', heard],
      ]
        .map(([name, text]) => `<dt>${name}</dt><dd>${text ? escaped(text) : '<i>nothing</i>'}</dd>`)
        .join('')}</dl></article>`,
    )
  }
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A small USDM of published parts</title><style>${STYLE}</style></head><body><main>
<h1>A small USDM of published parts</h1>
<p>Whisper base's encoder and k-means hear, SmolLM2-135M-Instruct, trained as a whole, writes, a small Voicebox and Griffin-Lim speak.</p>
<p><strong>What is synthetic:</strong> the voices of all dialogs are espeak-ng's, one for each speaker, in training and test alike; the texts are DailyTalk's,
and none of the dialogs of the test was in training. The Voicebox was trained on real voices, of actors who speak Czech and Dutch, so the replies
are English words in its voice.</p>
<table>${rows.map(([name, value]) => `<tr><th scope="row">${escaped(name)}</th><td>${escaped(value)}</td></tr>`).join('')}</table>
<h2>Training</h2>${['pretraining', 'rehearsal', 'main', 'by-heart', 'voicebox'].map((name) => curve(out, name)).join('')}
<h2>Clips of the test, made again</h2>${sounds.join('')}
<h2>Held-out questions and replies</h2>
<p>The first ones, not the best.</p>${replies.join('')}
</main></body></html>
`
}

/** Losses by step, of a training's metrics.jsonl. */
function curve(out: string, name: string): string {
  const lines = readFileSync(join(out, name, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
  const read = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  const points = (key: string) =>
    read.flatMap((line) => (typeof line[key] === 'number' ? [[line.step as number, line[key] as number] as const] : []))
  const own = [points('loss'), points('evalLoss')]
  const last = Math.max(1, ...own.flat().map(([step]) => step))
  const most = Math.max(1e-9, ...own.flat().map(([, value]) => value))
  const path = (list: readonly (readonly [number, number])[], i: number) =>
    `<polyline class="c${i}" points="${list.map(([x, y]) => `${(50 + (700 * x) / last).toFixed(1)},${(210 - (190 * y) / most).toFixed(1)}`).join(' ')}"/>`
  return `<figure><figcaption>${name}: training loss${own[1]!.length > 0 ? ', and that of other dialogs' : ''}</figcaption>
<svg viewBox="0 0 770 240" role="img" aria-label="loss of ${name} by step"><path d="M50 20V210H750"/>${own.map(path).join('')}
<text x="44" y="26" text-anchor="end">${most.toFixed(2)}</text><text x="44" y="214" text-anchor="end">0</text><text x="750" y="230" text-anchor="end">step ${last}</text></svg></figure>`
}

async function audioOf(
  out: string,
  wav: string | undefined,
): Promise<{ samples: Float32Array; sampleRate: number } | null> {
  if (wav === undefined) return null
  return vt.scope(async () => {
    const { samples, sampleRate } = await vt.readAudio(join(out, wav.startsWith(out) ? wav.slice(out.length) : wav))
    return { samples: samples.flatten().dataSync() as Float32Array, sampleRate }
  })
}

function figure(what: string, samples: Float32Array, sampleRate: number): string {
  return `<figure><figcaption>${what}</figcaption><audio controls preload="metadata" aria-label="${what}" src="data:audio/wav;base64,${wavOf(samples, sampleRate).toString('base64')}"></audio></figure>`
}

/** 16 bits, one channel. */
function wavOf(samples: Float32Array, sampleRate: number): Buffer {
  const file = Buffer.alloc(44 + 2 * samples.length)
  file.write('RIFF', 0)
  file.writeUInt32LE(36 + 2 * samples.length, 4)
  file.write('WAVEfmt ', 8)
  file.writeUInt32LE(16, 16)
  file.writeUInt16LE(1, 20)
  file.writeUInt16LE(1, 22)
  file.writeUInt32LE(sampleRate, 24)
  file.writeUInt32LE(2 * sampleRate, 28)
  file.writeUInt16LE(2, 32)
  file.writeUInt16LE(16, 34)
  file.write('data', 36)
  file.writeUInt32LE(2 * samples.length, 40)
  samples.forEach(
    (value, i) => void file.writeInt16LE(Math.round(32_767 * Math.max(-1, Math.min(1, value))), 44 + 2 * i),
  )
  return file
}

const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] as string)

const STYLE = `:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0}main{max-width:860px;margin:0 auto;padding:24px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:6px 12px 6px 0;border-bottom:1px solid #8885;font-weight:400}td{font-weight:600}
figure{margin:12px 0}figcaption{opacity:.75}svg{width:100%;height:auto;font-size:12px}svg path,svg polyline{fill:none;stroke:currentColor;opacity:.5}
svg .c0{stroke:#0f6b66;stroke-width:2;opacity:1}svg .c1{stroke:#b4632a;stroke-width:2;opacity:1}svg text{fill:currentColor}audio{width:100%}
article{border-top:1px solid #8885;padding:12px 0}h3{font-size:15px;margin:0}dl{display:grid;grid-template-columns:8em 1fr;gap:2px 12px;margin:8px 0 0}dt{opacity:.75}dd{margin:0;overflow-wrap:anywhere}`
