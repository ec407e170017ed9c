// Recording from the microphone.

/**
 * Start recording, after the browser's permission prompt. `stop` returns all samples at the microphone's sample rate.
 * @param {(part: Float32Array, seconds: number) => void} onSamples called ten times a second
 */
export async function startRecording(onSamples) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error('The browser allows the microphone only for pages of this machine or over https.')
  }
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, autoGainControl: false } })
  const context = new AudioContext()
  const end = async () => {
    for (const track of stream.getTracks()) track.stop()
    if (context.state !== 'closed') await context.close()
  }
  try {
    await context.audioWorklet.addModule('/recorder-worklet.js')
    await context.resume()
    const node = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0 })
    const parts = []
    let length = 0
    node.port.onmessage = ({ data }) => {
      parts.push(data)
      length += data.length
      onSamples(data, length / context.sampleRate)
    }
    context.createMediaStreamSource(stream).connect(node)
    return {
      async stop() {
        const { sampleRate } = context
        await end()
        const samples = new Float32Array(length)
        let at = 0
        for (const part of parts) {
          samples.set(part, at)
          at += part.length
        }
        return { samples, sampleRate }
      },
    }
  } catch (error) {
    await end()
    throw error
  }
}
