// A photograph in, the picture of why out: by ONNX Runtime and libjpeg alone.
//
//   explain model.explain.onnx cat.jpg overlay.ppm [class]
//
// The class to explain is an index; -1, the default, is the predicted class, -2 the runner-up.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>

struct Photograph {
  int64_t height, width;
  std::vector<uint8_t> pixels;  // [height, width, 3], red, green and blue
};

// libjpeg itself ends the program, with a message, where a file is no JPEG.
Photograph read_jpeg(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) throw std::runtime_error("cannot read " + path);
  jpeg_error_mgr errors;
  jpeg_decompress_struct jpeg;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&jpeg);
  jpeg_stdio_src(&jpeg, file);
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  const size_t stride = size_t{3} * jpeg.output_width;
  Photograph photograph{jpeg.output_height, jpeg.output_width, {}};
  photograph.pixels.resize(jpeg.output_height * stride);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = photograph.pixels.data() + jpeg.output_scanline * stride;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  std::fclose(file);
  return photograph;
}

void write_ppm(const std::string& path, const Ort::Value& picture) {
  const std::vector<int64_t> shape = picture.GetTensorTypeAndShapeInfo().GetShape();
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << shape[2] << ' ' << shape[1] << "\n255\n";
  file.write(picture.GetTensorData<char>(), shape[1] * shape[2] * 3);
  if (!file) throw std::runtime_error("cannot write " + path);
}

void explain(const char* model, const char* photograph, const char* out, int64_t target) {
  Photograph seen = read_jpeg(photograph);
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING);
  Ort::Session session(env, std::filesystem::path(model).c_str(), Ort::SessionOptions());

  auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  const std::array<int64_t, 4> pixels{1, seen.height, seen.width, 3};
  const std::array<int64_t, 1> one{1};
  const std::array inputs{
      Ort::Value::CreateTensor(memory, seen.pixels.data(), seen.pixels.size(), pixels.data(), 4),
      Ort::Value::CreateTensor(memory, &target, 1, one.data(), 1)};
  const std::array taken{"image", "target"};
  const std::array wanted{"picture", "top_classes", "top_probabilities"};
  const std::vector<Ort::Value> outputs = session.Run(
      Ort::RunOptions(), taken.data(), inputs.data(), taken.size(), wanted.data(), wanted.size());

  write_ppm(out, outputs[0]);
  const int64_t* classes = outputs[1].GetTensorData<int64_t>();
  const float* probabilities = outputs[2].GetTensorData<float>();
  for (size_t i = 0; i < outputs[1].GetTensorTypeAndShapeInfo().GetElementCount(); ++i) {
    std::printf("%lld %.4f\n", static_cast<long long>(classes[i]), probabilities[i]);
  }
}

int main(int count, char** given) {
  if (count != 4 && count != 5) {
    std::fprintf(stderr, "usage: %s model.explain.onnx cat.jpg overlay.ppm [class]\n", given[0]);
    return 2;
  }
  try {
    explain(given[1], given[2], given[3], count == 5 ? std::stoll(given[4]) : -1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
