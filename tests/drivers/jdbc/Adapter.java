// Apache's Arrow Flight SQL JDBC driver, the one of DBeaver, Tableau and Spark, through java.sql alone.
// Requests and answers are those of ../tool.py.

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Driver;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

public class Adapter {
  /** What JDBC, or this driver, has no way to ask for. */
  static class NotOffered extends Exception {
    NotOffered(String why) {
      super(why);
    }
  }

  private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
  private Connection connection;

  public static void main(String[] arguments) throws Exception {
    PrintStream out = System.out;
    System.setOut(System.err);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Adapter adapter = new Adapter();
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      out.write((JSON.toJson(adapter.answer(JSON.fromJson(line, JsonObject.class))) + "\n").getBytes(StandardCharsets.UTF_8));
      out.flush();
    }
    System.exit(0);
  }

  private Map<String, Object> answer(JsonObject request) {
    Map<String, Object> answer = new LinkedHashMap<>();
    try {
      answer.put("ok", run(request));
    } catch (NotOffered why) {
      answer.put("not_offered", why.getMessage());
    } catch (Throwable error) {
      answer.put("error", explained(error));
    }
    return answer;
  }

  /** The messages of an error and its causes: tools show all of them. */
  private static String explained(Throwable error) {
    StringBuilder text = new StringBuilder();
    for (Throwable at = error; at != null; at = at.getCause()) {
      String said = String.valueOf(at.getMessage() == null ? at.getClass().getName() : at.getMessage());
      if (text.indexOf(said) < 0) {
        text.append(text.length() == 0 ? "" : ": ").append(said);
      }
    }
    return text.toString();
  }

  private Object run(JsonObject request) throws Exception {
    String sql = request.has("sql") ? request.get("sql").getAsString() : null;
    switch (request.get("op").getAsString()) {
      case "about":
        Driver driver = DriverManager.getDriver("jdbc:arrow-flight-sql://x:1");
        return Map.of("flight-sql-jdbc-driver", driver.getMajorVersion() + "." + driver.getMinorVersion(), "java", System.getProperty("java.version"));
      case "connect":
        connect(request);
        return null;
      case "close":
        close();
        return null;
      case "run":
        try (Statement statement = connection.createStatement()) {
          statement.execute(sql);
        }
        return null;
      case "query":
        return query(sql, request.get("parameters"));
      case "update":
        return update(sql, request.get("rows"));
      case "drain":
        return drain(sql);
      case "browse":
        return browse();
      case "cancel":
        return cancel(sql, request.get("after").getAsDouble());
      case "option":
        throw new NotOffered("JDBC has no session options; write `SET`, or a property into the URL");
      case "upload":
        throw new NotOffered("the driver has no upload; make the spine a temporary view");
      default:
        throw new IllegalArgumentException("an unknown operation");
    }
  }

  private void connect(JsonObject request) throws Exception {
    close();
    StringBuilder url = new StringBuilder("jdbc:arrow-flight-sql://" + request.get("host").getAsString() + ":"
        + request.get("port").getAsInt() + "?useEncryption=false");
    if (!request.get("user").isJsonNull()) {
      url.append("&user=").append(request.get("user").getAsString());
      url.append("&password=").append(request.get("password").getAsString());
    }
    for (Map.Entry<String, JsonElement> header : request.getAsJsonObject("headers").entrySet()) {
      url.append("&").append(header.getKey()).append("=").append(URLEncoder.encode(header.getValue().getAsString(), StandardCharsets.UTF_8));
    }
    connection = DriverManager.getConnection(url.toString());
  }

  private void close() throws SQLException {
    if (connection != null) {
      Connection closing = connection;
      connection = null;
      try {
        closing.close();
      } catch (SQLException lost) {
        System.err.println("close: " + lost.getMessage());
      }
    }
  }

  private Map<String, Object> query(String sql, JsonElement parameters) throws Exception {
    if (parameters.isJsonNull()) {
      try (Statement statement = connection.createStatement()) {
        if (!statement.execute(sql)) {
          return Map.of("columns", List.of(), "rows", List.of());
        }
        try (ResultSet rows = statement.getResultSet()) {
          return fetched(rows);
        }
      }
    }
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      int place = 1;
      for (JsonElement parameter : parameters.getAsJsonArray()) {
        bind(statement, place++, parameter.getAsJsonObject());
      }
      try (ResultSet rows = statement.executeQuery()) {
        return fetched(rows);
      }
    }
  }

  private static void bind(PreparedStatement statement, int place, JsonObject parameter) throws SQLException {
    if (parameter.get("value").isJsonNull()) {
      statement.setNull(place, Types.VARCHAR);
      return;
    }
    String value = parameter.get("value").getAsString();
    switch (parameter.get("type").getAsString()) {
      case "int" -> statement.setLong(place, Long.parseLong(value));
      // Driver 18.3 takes no fewer digits behind the point than the place has, and does not tell how many those are.
      case "decimal" -> statement.setBigDecimal(place, new BigDecimal(value).setScale(10));
      case "double" -> statement.setDouble(place, Double.parseDouble(value));
      case "boolean" -> statement.setBoolean(place, Boolean.parseBoolean(value));
      case "date" -> statement.setDate(place, java.sql.Date.valueOf(value));
      case "binary" -> statement.setBytes(place, HexFormat.of().parseHex(value));
      case "timestamp" -> statement.setTimestamp(place, Timestamp.from(OffsetDateTime.parse(value).toInstant()));
      default -> statement.setString(place, value);
    }
  }

  private long update(String sql, JsonElement rows) throws SQLException {
    if (rows.isJsonNull()) {
      try (Statement statement = connection.createStatement()) {
        return statement.executeUpdate(sql);
      }
    }
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      for (JsonElement row : rows.getAsJsonArray()) {
        int place = 1;
        for (JsonElement parameter : row.getAsJsonArray()) {
          bind(statement, place++, parameter.getAsJsonObject());
        }
        statement.addBatch();
      }
      return Arrays.stream(statement.executeBatch()).asLongStream().sum();
    }
  }

  private static Map<String, Object> fetched(ResultSet rows) throws Exception {
    ResultSetMetaData about = rows.getMetaData();
    List<String> columns = new ArrayList<>();
    for (int i = 1; i <= about.getColumnCount(); i++) {
      columns.add(about.getColumnLabel(i));
    }
    List<List<String>> cells = new ArrayList<>();
    while (rows.next()) {
      List<String> row = new ArrayList<>();
      for (int i = 1; i <= columns.size(); i++) {
        row.add(text(value(rows, i)));
      }
      cells.add(row);
    }
    return Map.of("columns", columns, "rows", cells);
  }

  /** `getObject` by place fails on instants up to driver 18.3, and `getTimestamp` shifts them where the JVM is not in UTC. */
  private static Object value(ResultSet rows, int place) throws SQLException {
    boolean instant = rows.getMetaData().getColumnType(place) == Types.TIMESTAMP_WITH_TIMEZONE;
    return instant ? rows.getObject(place, OffsetDateTime.class) : rows.getObject(place);
  }

  private static String text(Object value) throws Exception {
    if (value instanceof byte[] bytes) {
      return HexFormat.of().formatHex(bytes);
    } else if (value instanceof BigDecimal number) {
      return number.toPlainString();
    } else if (value instanceof Array array) {
      List<String> items = new ArrayList<>();
      for (Object item : (Object[]) array.getArray()) {
        items.add(text(item));
      }
      return JSON.toJson(items);
    } else if (value instanceof List<?> list) {
      List<String> items = new ArrayList<>();
      for (Object item : list) {
        items.add(text(item));
      }
      return JSON.toJson(items);
    } else if (value instanceof Map<?, ?> map) {
      Map<String, String> fields = new LinkedHashMap<>();
      for (Map.Entry<?, ?> field : map.entrySet()) {
        fields.put(field.getKey().toString(), text(field.getValue()));
      }
      return JSON.toJson(fields);
    }
    return value == null ? null : value.toString();
  }

  private Map<String, Object> drain(String sql) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      int columns = rows.getMetaData().getColumnCount();
      double[] sums = new double[columns];
      boolean[] numeric = new boolean[columns];
      long count = 0;
      while (rows.next()) {
        count++;
        for (int i = 0; i < columns; i++) {
          if (value(rows, i + 1) instanceof Number number) {
            numeric[i] = true;
            sums[i] += number.doubleValue();
          }
        }
      }
      Map<String, Object> found = new LinkedHashMap<>();
      for (int i = 0; i < columns; i++) {
        if (numeric[i]) {
          found.put(rows.getMetaData().getColumnLabel(i + 1), sums[i]);
        }
      }
      return Map.of("rows", count, "sums", found);
    }
  }

  private Map<String, Object> browse() throws Exception {
    DatabaseMetaData about = connection.getMetaData();
    everyGetter(about);
    Map<String, Object> found = new LinkedHashMap<>();
    found.put("catalogs", names(about.getCatalogs(), "TABLE_CAT").stream().map(row -> row.get(0)).toList());
    found.put("schemas", names(about.getSchemas(), "TABLE_SCHEM").stream().map(row -> row.get(0)).toList());
    found.put("tables", names(about.getTables(null, null, "%", null), "TABLE_SCHEM", "TABLE_NAME"));
    found.put("columns", names(about.getColumns(null, null, "%", "%"), "TABLE_SCHEM", "TABLE_NAME", "COLUMN_NAME"));
    found.put("keys", names(about.getPrimaryKeys(null, "features", "prices"), "TABLE_SCHEM", "TABLE_NAME", "COLUMN_NAME"));
    names(about.getImportedKeys(null, "features", "prices"), "FK_NAME");
    names(about.getExportedKeys(null, "features", "prices"), "FK_NAME");
    names(about.getCrossReference(null, "features", "prices", null, "features", "extremes"), "FK_NAME");
    names(about.getTableTypes(), "TABLE_TYPE");
    return found;
  }

  /** Every property of the database that takes no argument: a missing entry of SqlInfo would end in an exception. */
  private static void everyGetter(DatabaseMetaData about) throws Exception {
    for (Method method : DatabaseMetaData.class.getMethods()) {
      if (method.getParameterCount() == 0 && !ResultSet.class.isAssignableFrom(method.getReturnType())) {
        try {
          method.invoke(about);
        } catch (InvocationTargetException error) {
          if (!(error.getCause() instanceof SQLFeatureNotSupportedException)) {
            throw new SQLException(method.getName() + ": " + explained(error.getCause()));
          }
        }
      }
    }
  }

  private static List<List<String>> names(ResultSet rows, String... columns) throws SQLException {
    List<List<String>> found = new ArrayList<>();
    try (rows) {
      while (rows.next()) {
        List<String> row = new ArrayList<>();
        for (String column : columns) {
          row.add(rows.getString(column));
        }
        found.add(row);
      }
    }
    return found;
  }

  private double cancel(String sql, double after) throws Exception {
    try (Statement statement = connection.createStatement()) {
      CompletableFuture<Void> call = CompletableFuture.runAsync(() -> {
        try (ResultSet rows = statement.executeQuery(sql)) {
          rows.next();
        } catch (SQLException stopped) {
          throw new IllegalStateException(stopped);
        }
      });
      Thread.sleep((long) (after * 1000));
      long began = System.nanoTime();
      statement.cancel();
      try {
        call.get(30, TimeUnit.SECONDS);
      } catch (ExecutionException stopped) {
        return (System.nanoTime() - began) / 1e9;
      }
      throw new SQLException("the statement went on after it was cancelled");
    }
  }
}
