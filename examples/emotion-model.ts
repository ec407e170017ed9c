/** Features of a clip and the classifier on them, for emotion-speech.ts and emotion-predict.ts. */
import * as vt from 'voxtorch'

const [RATE, BANDS, CEPSTRA] = [16000, 40, 20]

/**
 * A clip as 420 numbers: over all its frames, seven statistics of each of 40 log-mel bands and of 20 cepstra, which are
 * their cosine transform: mean, deviation, two of the change from frame to frame, and three quantiles.
 */
export async function clipStatistics(path: string): Promise<vt.Tensor> {
  return vt.scope(async () => {
    const { samples } = await vt.readAudio(path, { sampleRate: RATE })
    const options = { nFft: 640, hopLength: 160, nMels: BANDS, fMin: 50, log: 'ln', floor: 1e-7 } as const
    const mel = await vt.melSpectrogram(samples, RATE, options) // [40, frames]
    return vt.cat([statistics(mel), statistics(cosines().matmul(mel))]) // [420]
  })
}

/** [rows, frames] -> [rows · 7] */
function statistics(x: vt.Tensor): vt.Tensor {
  const frames = x.size(1)
  const change = x.narrow(1, 2, frames - 2).sub(x.narrow(1, 0, frames - 2))
  const { values } = x.sort(1)
  const quantile = (share: number) => values.select(1, Math.round(share * (frames - 1)))
  const moments = [x.mean([1]), x.std([1]), change.abs().mean([1]), change.std([1])]
  return vt.cat([...moments, quantile(0.1), quantile(0.5), quantile(0.9)])
}

/** The first rows of a discrete cosine transform, [20, 40]. */
function cosines(): vt.Tensor {
  const row = vt.arange(CEPSTRA, { dtype: 'float32' }).unsqueeze(1)
  const column = vt.arange(BANDS, { dtype: 'float32' }).add(0.5)
  return row
    .mul(column)
    .mul(Math.PI / BANDS)
    .cos()
    .mul(Math.sqrt(2 / BANDS))
}

/** Mean and deviation of each number over one speaker's clips, each [numbers]. */
export interface Speaker {
  mean: vt.Tensor
  std: vt.Tensor
}

export const speakerOf = (clips: vt.Tensor): Speaker =>
  vt.scope(() => ({ mean: clips.mean([0]), std: clips.std([0]).add(1e-5) }))

export interface EmotionConfig {
  classes: string[]
  /** Number of features of a clip. */
  size: number
}

/** Five small networks, whose votes count together: a single one depends too much on chance. */
export class VoiceEmotion extends vt.Module {
  voters: vt.ModuleList<Voter>
  /** An average speaker of the training set, for `adapted`. */
  mean: vt.Tensor
  std: vt.Tensor

  constructor(readonly config: EmotionConfig) {
    super()
    this.voters = new vt.ModuleList(Array.from({ length: 5 }, () => new Voter(config)))
    this.mean = this.registerBuffer('mean', vt.zeros([config.size]))
    this.std = this.registerBuffer('std', vt.ones([config.size]))
  }

  static fromPretrained(directory: string): Promise<VoiceEmotion> {
    return vt.loadPretrained(directory, (config: EmotionConfig) => new VoiceEmotion(config))
  }

  save(directory: string): Promise<void> {
    return vt.savePretrained(directory, this, this.config)
  }

  /** Features of clips, normalized per speaker, [clips, size] -> log-probabilities [clips, classes] */
  override forward(clips: vt.Tensor): vt.Tensor {
    return vt.scope(() => vt.stack(this.each(clips)).softmax(-1).mean([0]).log())
  }

  /** The logits of each network, for training. */
  each(clips: vt.Tensor): vt.Tensor[] {
    return [...this.voters].map((voter) => voter.forward(clips))
  }

  /** Raw numbers of clips of one unknown speaker. The more there are, the less the average speaker counts. */
  adapted(clips: vt.Tensor): vt.Tensor {
    return vt.scope(() => {
      const count = clips.size(0)
      const own = count / (count + 10)
      const mean = clips
        .mean([0])
        .mul(own)
        .add(this.mean, { alpha: 1 - own })
      const std =
        count < 2
          ? this.std
          : clips
              .std([0])
              .mul(own)
              .add(this.std, { alpha: 1 - own })
      return clips.sub(mean).div(std)
    })
  }
}

class Voter extends vt.Module {
  hidden: vt.Linear
  out: vt.Linear

  constructor({ size, classes }: EmotionConfig) {
    super()
    this.hidden = new vt.Linear(size, 128)
    this.out = new vt.Linear(128, classes.length)
  }

  override forward(clips: vt.Tensor): vt.Tensor {
    return vt.scope(() => {
      const hidden = this.hidden.forward(vt.functional.dropout(clips, 0.3, this)).gelu()
      return this.out.forward(vt.functional.dropout(hidden, 0.5, this))
    })
  }
}
